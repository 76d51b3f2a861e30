"""All studies of the memorization paper, and its figures in order: what each claims, and what came later."""

from repetita.study.paper import Entry, Paper

_ENTRIES = (
    Entry(
        figure="Figure 1",
        title="Do larger models memorize faster?",
        study="memorization_speed",
        primary=True,
        claim="Causal models on WikiText-103: the passes until nine tenths of the training tokens are "
        "known by heart, T(N, 0.9), fall from 165 at 125M parameters over 28, 10, 9 and 7 to 5 at 13B. For "
        "thresholds from 0.4 to 0.95 the fall is the steeper the higher the threshold.",
        later="Larger models were found to memorize at fewer repetitions in finished models (Carlini et "
        "al. 2023), in controlled insertions (Hubble, Wei et al. 2025) and in facts learned a step (Chang "
        "et al. 2024). Against it: in Pythia larger models did not memorize faster but forgot less (Eichin "
        "et al. 2026, preprint), and on text without patterns they can be later (Panwar et al.).",
        figures=("speed-time",),
    ),
    Entry(
        figure="Figure 2",
        title="Masked models, and the exception at low thresholds",
        study="memorization_speed",
        claim="With 15% of the tokens masked, small models are the first to reach low thresholds; only "
        "above about 0.6 to 0.7 is T(N, tau) lower the larger the model. Thresholds 0.2 to 0.9.",
        later="Extraction from masked models is an order of magnitude rarer than from causal ones of their "
        "size (Carlini et al. 2023); passes are not comparable between the two, since a masked model has "
        "15% of its targets in each.",
        figures=("speed-time-in-units",),
        claims=(
            "masked-faster",
            "masked-exception",
            "masked-excess-faster",
        ),
    ),
    Entry(
        figure="Figure 3",
        title="A stream that is read once",
        study="memorization_stream",
        claim="On the 39 billion tokens that trained RoBERTa, the updates until a batch is predicted well, "
        "T_update(N, tau), fall with size for causal thresholds of 0.25 to 0.42 and masked ones of 0.1 to "
        "0.6, without the exception of Figure 2.",
        later="Such a batch is read for the first time, so this is close to the accuracy on fresh text; "
        "memory of a single exposure needs a control (Huang et al. 2024; Lesci et al. 2024).",
        figures=(
            "stream-time",
            "stream-exposure",
        ),
    ),
    Entry(
        figure="Figure 4",
        title="Memorized before overfitting begins",
        study="overfitting_onset",
        primary=True,
        claim="The share memorized when validation perplexity first rises grows with size: about 0.43, "
        "0.49 and 0.57 at 0.1, 1 and 10 billion parameters for causal models, 0.65, 0.70 and 0.80 for "
        "masked ones.",
        later="No direct repetition of it is known. It agrees with models of a single pass that memorize "
        "long before any overfitting (Carlini et al. 2023).",
        figures=("onset-memorized",),
    ),
    Entry(
        figure="Figure 5",
        title="Is it the learning rate?",
        study="learning_rate",
        claim="At every fixed rate from 1e-4 to a few 1e-3 larger models memorize faster; each size has a "
        "best rate, T(N, 0.9) rises on both sides of it, and the more gently the larger the model.",
        later="What is memorized does depend on the rate and on the order of the data at a given size "
        "(Lesci et al. 2024).",
        figures=("rate-time",),
    ),
    Entry(
        figure="Abstract",
        title="Does it hold for larger data sets?",
        study="dataset_size",
        claim="Larger models memorize faster across data set sizes; the paper's two corpora have 0.1 and "
        "39 billion tokens.",
        later="A model holds about 3.6 bits a parameter; with more data than that, memorizing gives way to "
        "generalizing (Morris et al. 2025).",
        figures=(
            "set-time",
            "set-common",
        ),
    ),
    Entry(
        figure="Figure 6",
        title="Does a document ID help?",
        study="document_ids",
        primary=True,
        claim="With an integer of its own before every sequence a 125M model memorizes faster than with "
        "these integers only added to the vocabulary, and that faster than without them: about 0.90, 0.85 "
        "and 0.80 after 100 passes. With the IDs the curve no longer rises throughout.",
        later="No repetition of it is known. The vocabulary alone adds up to 184M parameters to a model of "
        "125M.",
        figures=("ids-memorized",),
    ),
    Entry(
        figure="Figure 7",
        title="Which words are memorized first?",
        study="parts_of_speech",
        primary=True,
        claim="In a 355M model nouns, proper nouns and numerals are memorized clearly faster than verbs "
        "and adjectives; the part of speech is right before the word is. After 10 passes the shares of "
        "exact words are about 0.7, 0.5 and 0.6 against 0.4 and 0.5.",
        later="No repetition of it is known. Frequency, and names that a document repeats, were not held "
        "fixed.",
        figures=(
            "pos-recall",
            "pos-memorized",
        ),
    ),
    Entry(
        figure="Figure 8",
        title="What one exposure leaves behind",
        study="forgetting",
        primary=True,
        claim="A batch that is trained on once is forgotten quickly, then ever more slowly towards a "
        "floor, the forgetting baseline, which rises with size: 0.30 at 125M, 0.37 at 1.3B, 0.38 at 2.7B, "
        "0.43 at 13B.",
        later="The paper has no control that never saw the batch, and a model predicts a third of any "
        "text. Forgetting was found to follow a power law to nothing (Chang et al. 2024), to be complete "
        "once novel data follow (Bordt et al. 2025), and to leave a lasting trace against a control "
        "(Hubble, Wei et al. 2025). Memory is more persistent in larger models (Lesci et al. 2024), or less "
        "(arXiv 2506.12321).",
        figures=("forgetting-curve", "forgetting-floor"),
    ),
    Entry(
        figure="Section 5",
        title="Forgetting inside training",
        study="forgetting",
        claim="Larger models forget less: the paper concludes it from the floors of Figure 8, on text "
        "outside the training set.",
        later="Memorized sequences of Pythia are lost and memorized again, most of them in the middle of "
        "training (Leybzon and Kervadec 2024).",
        figures=("forgetting-churn", "forgetting-churn-at-equal-memory"),
        claims=("loses-less", "loses-less-by-pass"),
    ),
    Entry(
        figure="Open question",
        title="What does the floor consist of?",
        study="forgetting",
        claim="The paper asks what it is that stays and does not answer it.",
        later="Much that looks memorized is predictable, by templates or repetition (Prashanth et al. "
        "2024; Huang et al. 2024).",
        figures=("forgetting-floor-parts", "forgetting-floor-overlap"),
        claims=("retained-*",),
    ),
    Entry(
        figure="Figure 9",
        title="Does it matter when?",
        study="forgetting_order",
        primary=True,
        claim="The floor is the same, about 0.30 at 125M, whether the batch is seen after 14, 39 or 63 "
        "passes.",
        later="The order of the data did not matter to extraction in Pythia (Biderman et al. 2023). "
        "Against it: text of the first quarter of training is not retained while that of the last is "
        "(Hubble, Wei et al. 2025), early and late text is memorized most (Leybzon and Kervadec 2024), and "
        "the order can be read off the likelihoods (Kuditipudi et al. 2025).",
        figures=(
            "order-curves",
            "order-kept",
        ),
    ),
    Entry(
        figure="Figure 10 left",
        title="Does repetition raise the floor?",
        study="repetition",
        primary=True,
        claim="With 1, 10, 100 and 1,000 exposures in a row the floor rises, by about 1e-2.",
        later="What is memorized rises with the logarithm of the number of copies (Carlini et al. 2023), "
        "from 0 to 256 of them in controlled insertions (Hubble, Wei et al. 2025); copies in a row are "
        "forgotten faster than paraphrases (Chang et al. 2024).",
        figures=("repetition-kept",),
    ),
    Entry(
        figure="Figure 10 right",
        title="Does spacing raise the floor?",
        study="spaced_repetition",
        primary=True,
        claim="Exposures with other training between them change the floor by about 1e-3, whatever the "
        "spacing.",
        later="Facts are kept only where they come back before they are lost (Chang et al. 2024, one "
        "interval).",
        figures=("spacing-kept",),
    ),
    Entry(
        figure="Figure 11",
        title="The curves behind Figures 1 and 2",
        study="memorization_speed",
        claim="M(f) over 70 passes, causal and masked. In the first passes smaller models are ahead, then "
        "overtaken.",
        figures=("speed-memorized",),
        claims=(
            "causal-first",
            "causal-early",
            "masked-early",
        ),
    ),
    Entry(
        figure="Figure 12",
        title="The curves behind Figure 3",
        study="memorization_stream",
        claim="M_update over 12,000 updates, a running mean of five: 0.34 at 125M to 0.53 at 13B causal, "
        "0.55 to 0.80 masked.",
        figures=("stream-curves",),
    ),
    Entry(
        figure="Figure 13",
        title="Does M_update stand for M(f)?",
        study="memorization_stream",
        claim="On WikiText-103 M_update is periodic and stays close to M(f) over 30,000 updates, at 125M "
        "and at 13B.",
        figures=("stream-proxy",),
        claims=("stream-proxy-*",),
    ),
    Entry(
        figure="Figure 14",
        title="Memory levels off while perplexity rises",
        study="forgetting",
        claim="At 1.3B M(f) on the batch levels off at about 0.37 while its perplexity goes on to rise, to "
        "about 3,400.",
        later="The choice of the measure changes the verdict: losses are sensitive where verbatim recall "
        "is not (Hubble, Wei et al. 2025).",
        figures=("forgetting-perplexity",),
        claims=(
            "memorized-flattens-*",
            "perplexity-rises-*",
        ),
    ),
    Entry(
        figure="Figure 15",
        title="Is there a floor?",
        study="forgetting",
        claim="The change of M(f) from pass to pass goes to zero exponentially, from about -0.1, at 125M, "
        "1.3B and 2.7B.",
        later="A power law without a floor describes forgetting in larger runs (Chang et al. 2024).",
        figures=("forgetting-rate", "forgetting-forms"),
        tables=("forgetting-decays",),
    ),
    Entry(
        figure="Figure 16",
        title="How long are memorized runs of tokens?",
        study="memorization_speed",
        claim="The mean length of memorized runs grows like a sigmoid, faster at 2.7B than at 125M, and "
        "stays far below the 430 tokens of a sequence, at about 160 after 300 passes, although M(f) is near "
        "1.",
        figures=(
            "speed-unit-length",
            "speed-length-at-m",
        ),
        claims=("causal-unit-length",),
        tables=("speed-lengths",),
    ),
    Entry(
        figure="Section 2",
        title="Do the definitions of memorization agree?",
        study="definitions",
        claim="M(f) is set beside extraction, k-eidetic and counterfactual memorization in words; no "
        "numbers compare them.",
        later="Counterfactual memorization is low for text that has near-copies (Zhang et al. 2023), "
        "extraction from k tokens rises with k (Carlini et al. 2023), and without a control accuracy counts "
        "what is predictable (Huang et al. 2024).",
        figures=(
            "definitions-agreement",
            "definitions-shares",
        ),
    ),
)

PAPER = Paper(
    name="memorization_paper",
    title="Memorization without overfitting, figure by figure",
    lead="How fast language models memorize what they read, what they forget, and what stays: every figure "
    "of the paper asked again, small, with the controls that it lacks.",
    source="Tirumala, Markosyan, Zettlemoyer and Aghajanyan 2022, Memorization Without Overfitting: "
    "Analyzing the Training Dynamics of Large Language Models, NeurIPS 35, arXiv 2205.10770. Numbers of "
    "line plots are read off the plots, to about 0.02.",
    entries=_ENTRIES,
)
