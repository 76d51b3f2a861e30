"""All studies of the repeated-data paper, and its figures in order: what each claims, and what came later."""

from repetita.study.paper import Entry, Paper

_NO_CODE = "No public code that repeats this is known."

_ENTRIES = (
    Entry(
        figure="Figure 1",
        title="What is held fixed",
        study="double_descent",
        claim="All models read 100B tokens. A share f of them comes from reading a small random subset "
        "again and again, in place of unique tokens; the smaller the subset, the more passes E over it: "
        "with f = 10%, 0.01% of the tokens 1,000 times, 0.1% 100 times or 1% 10 times. Test text holds "
        "nothing that is repeated.",
        later="What repeats displace is missing as well: here a control reads nothing in their place. Later "
        "work repeats a whole corpus: up to 4 passes are nearly free, gains last to about 16 (Muennighoff "
        "et al. 2023).",
        figures=("damage-split",),
        claims=("interference-*",),
    ),
    Entry(
        figure="Figure 2 left",
        title="Do a hundred passes over a thousandth of the data halve a model?",
        study="double_descent",
        primary=True,
        claim="At f = 10% the final test loss of each size has a hump over the number of passes, at fewer "
        "passes the larger the model. 800M parameters at about 100 passes come to a model of 400M "
        "(abstract) or of nearly 340M (its text, twice): the paper contradicts itself there. Sizes 1.5M to "
        "800M, as far as stated one run a point.",
        later="The same hump at f = 10% in models of 34M to 344M parameters, whose loss at worst is only 1 "
        "to 4% higher, which is worth 19 to 33% of the compute (Chudnovsky et al. 2026).",
        figures=("loss-by-passes",),
    ),
    Entry(
        figure="Figure 2 right",
        title="Is it worst where the subset becomes memorized?",
        study="double_descent",
        claim="At 122 passes and f = 10% the test loss leaves the line of the controls at about 100M "
        "parameters, where the train loss on the repeated subset approaches zero: a sign to look out for. "
        "No threshold is given.",
        later="In deep double descent the worst point lies where the training error reaches about zero "
        "(Nakkiran et al. 2019): the notion that the paper extends to a part of the data.",
        figures=("loss-by-size", "subset-memorized"),
        claims=("marker-*",),
    ),
    Entry(
        figure="Figure 3",
        title="Does the test loss rise during training?",
        study="double_descent",
        claim="800M parameters, f = 90%: within a run the test loss falls, rises and falls again, for 100 "
        "to 10,000 passes. At f = 50% the rise becomes a long plateau.",
        later=f"{_NO_CODE} Under a schedule that ends low the last fall may be the schedule's: here runs at "
        "a constant rate stand beside.",
        figures=("learning-curves-f90", "learning-curves-f50"),
        tables=("within-runs",),
        claims=("within-run",),
    ),
    Entry(
        figure="Figure 4 left",
        title="Which sizes are hit at a given number of passes?",
        study="double_descent",
        claim="f = 10%: at 1,220 passes models of 10M to 100M come to 0.55 of their size and 1B to 0.8; at "
        "122 passes the dip begins at about 100M, with its middle near 1B. The caption has 12,200 passes "
        "leave the law at 400M, which fits neither the trend nor the band.",
        later="The worst number of passes fell as N^-0.96 in later work, with a training length that grows "
        "with N (Chudnovsky et al. 2026); about N^-0.5 here, at a fixed one.",
        figures=("multiplier-by-size", "excess-by-size"),
        claims=("peak-moves",),
    ),
    Entry(
        figure="Figure 4 right",
        title="Is there a band of damaging passes that falls with size?",
        study="double_descent",
        claim="At least half of the worst damage is done between two power laws, E = 4.2e6 N^-0.56 and E = "
        "5.1e7 N^-0.50, averages over f from 3 to 90% (the fits leave out 1%, which is too noisy); 340M: 70 "
        "to 2,800 passes. The authors trust the band, not its exact edges.",
        later="At 344M the worst number of passes was about 155 (Chudnovsky et al. 2026), inside that band "
        "and below its middle of 440.",
        figures=("damaging-band",),
        tables=("band",),
        claims=("band-falls",),
    ),
    Entry(
        figure="Figure 5",
        title="Does copying lose more than test loss?",
        study="copying",
        primary=True,
        claim="The loss on a paragraph of 1,463 characters, written 11 times in a row. With f = 3% at the "
        "worst number of passes several sizes copy like a model 3 times smaller, while the test loss costs "
        "at most 1.15 times. That copying loses more holds for f = 3 to 20% by the caption, for all shares "
        "by the text. 1.5M parameters at f = 50%: copying breaks down.",
        later=f"{_NO_CODE} Verbatim copying and in-context learning can part: without the loss on tokens "
        "that induction predicts, induction heads weaken and abstractive in-context learning stays (Hapax "
        "2025).",
        figures=("copying-multiplier-by-fraction",),
    ),
    Entry(
        figure="Figure 6",
        title="Do induction heads lose more than test loss?",
        study="induction_heads",
        primary=True,
        claim="Attention from a repeated random token to what followed it before (prefix matching). With f "
        "= 3% at the worst number of passes the score is that of a model 1.47 times smaller, mean over "
        "sizes; the text has 2 times elsewhere. Test loss: at most 1.15. Out of proportion for f = 3 to 20% "
        "by the caption, at low f only by the text. How the heads of a model are put together is not stated.",
        later="Induction heads form in a narrow window early in training (Olsson et al. 2022); batch and "
        "context size predict when, whatever the size of the model (Aoyama et al. 2025). No repetition of "
        "this figure is known.",
        figures=("induction-size-multiplier", "induction-score-by-passes", "induction-formation"),
    ),
    Entry(
        figure="Figure 7 left",
        title="Does a copy help the next one?",
        study="copying",
        claim="Models of two layers (1.5M), f = 50%: the loss on the paragraph falls with the number of "
        "copies, 11 or 12 of them, but at the worst number of passes it stays high and flat.",
        figures=("copying-by-copy-long",),
        claims=("copying-flat",),
    ),
    Entry(
        figure="Figure 7 right",
        title="Does context help less?",
        study="copying",
        claim="The test loss falls along a sequence, and less so at the worst number of passes; this gain "
        "suffers less than copying.",
        figures=("copying-by-index",),
        claims=("copying-in-context",),
    ),
    Entry(
        figure="Figure 8",
        title="Which tokens suffer in one layer?",
        study="attention_only",
        claim="One layer without MLP, f = 10%, token by token: names that return suffer most. For the last "
        "three 'Potters' the control gives 'ters' more than 97%, the model of repeated data under 4%.",
        later="Models of one layer never show the window of training in which induction heads form (Olsson "
        "et al. 2022): what they copy, they copy by skip-trigrams.",
        figures=("attention-only-tokens-*",),
        claims=("names-1-layer*", "names-beyond-1-layer*", "fuzzy-1-layer-*"),
    ),
    Entry(
        figure="Figure 9",
        title="And in two layers?",
        study="attention_only",
        claim="Mixed: some names 1.1 times likelier after repetition, names in another form up to 500 times "
        "less likely. 'Dursley', second occurrence: 92% against 10%; 'Dursleys' 44% against 4.9%; "
        "'unDursleyish' 68% against 0.4%.",
        tables=("attention-only-names", "attention-only-name-tokens"),
        claims=("names-2-layers*", "names-beyond-2-layers*", "fuzzy-2-layers-*"),
    ),
    Entry(
        figure="Figure 10",
        title="Does text of another kind lose more?",
        study="out_of_distribution",
        primary=True,
        claim="The loss of the text models on Python, in effective sizes: on top of the loss on their own "
        "text 0.84 at f = 50% and 0.75 at 90%, little at 1 to 10%, without a trend in size. So it hits "
        "where copying is not hit out of proportion.",
        later=_NO_CODE,
        figures=("other-text-extra",),
        tables=("other-text-means",),
    ),
    Entry(
        figure="Figure 11",
        title="The same on code",
        study="double_descent",
        claim="Trained on 45B tokens of Python, read 2.2 times, with f = 50%: double descent again; the "
        "band is noisier and its edges are not parallel. Code repeats itself by nature.",
        later="Here a laptop holds one line on code, 25k parameters at f = 50%; `repetita study run "
        "double_descent --corpus python-stdlib` is the whole grid. Near-duplicates were 3% of the documents "
        "of a web corpus, too (Lee et al. 2021).",
        figures=("loss-by-arm",),
        claims=("hump-*-python-stdlib",),
    ),
    Entry(
        figure="Figure 12",
        title="Does fine-tuning heal it?",
        study="finetuning",
        primary=True,
        claim="Pre-trained with f = 90% at the worst number of passes and fine-tuned on Python, a model is "
        "1.6 times smaller in effect than one trained on Python alone (ossification), where pre-training "
        "had cost 73 times. Section 2 tells it of f = 50% and 10 times. For billions of tokens it is much "
        "worse than after unique text and then catches up, which is hard to square with a lasting 1.6. The "
        "repeated text is soon forgotten.",
        later=f"{_NO_CODE} The recipe of the model from scratch is not stated: here it has its own rate, "
        "and that of fine-tuning beside it.",
        figures=("finetuning-curves", "finetuning-ladder"),
        tables=("finetuning-arms",),
    ),
    Entry(
        figure="Figure 13",
        title="Do the controls follow a power law?",
        study="control_scaling",
        claim="Runs on unique data, text and Python: test loss over size is a straight line in log-log, "
        "about three orders of magnitude of N. All effective sizes for test loss invert it. Its constants "
        "are not given.",
        later="Later laws have a loss that no size removes: 1.69 nats beside A / N^0.34 and B / D^0.28 "
        "(Hoffmann et al. 2022), 1.82 by another fit of the same runs (Besiroglu et al. 2024).",
        figures=("control-scaling", "control-residuals"),
        tables=("control-laws",),
    ),
    Entry(
        figure="Figure 14",
        title="The band, share by share",
        study="double_descent",
        claim="Passes at which half of the worst damage is done, to the left and to the right, for f = 3, "
        "10, 20, 50 and 90%: single shares are noisy, their mean is clean. Six points a curve make it "
        "coarse.",
        figures=("half-damage-by-share",),
    ),
    Entry(
        figure="Figure 15",
        title="Effective size over passes, for each share",
        study="double_descent",
        claim="A hump at every share, the 1% too noisy to fit. 800M at f = 50% loses a factor of 10 at "
        "worst, and at f = 90% one of 73 (section 5.4); 1.5M at 50% has the loss of a model of 30,000 "
        "parameters. The largest factors lie far below the smallest control.",
        later="The authors' own account of what is worth memorizing allows 1.25, 2.2 and 5.1 times at f = "
        "3, 10 and 20% (arithmetic on its rough losses 2.0 and 2.2).",
        figures=("size-multiplier", "worst-multiplier-by-share"),
        claims=("hump-*[0-9]",),
    ),
    Entry(
        figure="Figure 16",
        title="The band on code",
        study="double_descent",
        claim="As Figure 14 for Python, with two shares only: noisier, edges not parallel.",
        later="At laptop scale there is one line on code (in the table), of one size and share, too few for "
        "a band; `repetita study run double_descent --corpus python-stdlib` is the whole grid and draws it.",
        tables=("arms",),
    ),
    Entry(
        figure="Figures 17 and 18",
        title="Which heads copy?",
        study="attention_only",
        claim="Direct logit attribution by head in two layers, on the paragraph written twice: between a "
        "weaker induction head and other heads that interfere there is no clear verdict. In the discussion "
        "a skip-trigram head seems to have taken the place of the induction head.",
        figures=("attention-only-heads-*", "attention-only-head-tokens-*"),
        claims=("highest-head-*",),
    ),
    Entry(
        figure="Figure 19",
        title="Do one layer and no MLP show double descent?",
        study="attention_only",
        primary=True,
        claim="Models of one layer, attention only, have the hump over passes, too (f = 10%); the paper "
        "finds nothing simpler that it tried. Their width and training length are not stated.",
        later="Simpler still: least squares with d rows copied r times have a hump in closed form, since "
        "copies enter the fit with r and the error with r^2 (Chudnovsky et al. 2026).",
        figures=("attention-only-loss-*",),
    ),
    Entry(
        figure="Figure 20",
        title="Copying of the controls, and copying over passes",
        study="copying",
        claim="Copying loss falls with size in the controls, but by no law that could be extrapolated: "
        "sizes are interpolated. Over passes it has a hump that moves to fewer passes with size.",
        figures=("copying-control", "copying-by-passes-long"),
        claims=("copying-control*", "copying-peak-moves"),
    ),
    Entry(
        figure="Figure 21",
        title="Prefix matching of the controls",
        study="induction_heads",
        claim="The score rises with size and is fitted by a line; sizes are read off it, far beyond its "
        "ends: 1.5M at f = 50% has the score of a model of 2,000 parameters.",
        later="Heads form in a narrow window of training (Olsson et al. 2022): where a score is a step, it "
        "is no ruler for sizes.",
        figures=("induction-control-ladder",),
        tables=("induction-sizes",),
        claims=("score-rises",),
    ),
    Entry(
        figure="Figure 22",
        title="A shorter passage",
        study="copying",
        claim="A text of 125 characters instead of 1,463 (two layers, f = 50%): at the worst number of "
        "passes nothing is learned from copies either.",
        figures=("copying-by-copy-short", "copying-by-passes-short"),
        claims=("copying-flat-short",),
    ),
    Entry(
        figure="Section 5.1",
        title="Does the model trade capacity for memory?",
        study="double_descent",
        claim="Memorizing pays: 0.9 x 2.2 + 0.1 x 0 = 1.98 nats are less than 2.0, the losses of 400M and "
        "800M. Few passes over much data cannot be memorized, many over little are cheap; in the middle "
        "much of the model goes into it.",
        later="A model can store about 3.6 bits a parameter (Morris et al. 2025), which bounds what a "
        "subset can take.",
        figures=("capacity",),
    ),
    Entry(
        figure="Abstract",
        title="Does it matter what is repeated?",
        study="repetition_unit",
        primary=True,
        claim="Repeated data can stand at the level of documents, paragraphs or sentences, says the "
        "abstract; the experiments repeat random stretches alone. Repeats of sentences, paragraphs and "
        "shuffled chunks are on its list of what is missing. So the question is ours, and its margin of "
        "0.05 nats.",
        later="A web corpus repeats at several levels: 3.04% of its documents are near-duplicates, 7.18% of "
        "its tokens lie in repeated stretches of 50 (Lee et al. 2021). The levels were not compared for "
        "their cost.",
        figures=("unit-damage", "unit-by-passes"),
        tables=("unit-arms",),
    ),
    Entry(
        figure="Discussion",
        title="Are induction heads prevented, destroyed or masked?",
        study="causality",
        primary=True,
        claim="Damage to induction heads is offered as what damages copying, from end states alone: 100B "
        "tokens with repetition throughout. Whether heads never form, are lost or are drowned out, and how "
        "they compete with what memorizes, is left open.",
        later="Without a head, its neighbours' attention held as it was, one sees what the head carries; "
        "heads form between 2.5 and 5 billion tokens, in small models 1 to 3 (Olsson et al. 2022). No such "
        "experiment on repeated data is known.",
        figures=("causality-heads", "causality-carried"),
        tables=("causality-fates",),
    ),
    Entry(
        figure="Open question",
        title="What would help?",
        study="mitigation",
        claim="Early stopping, dropout, weight decay and other regularization were not studied (section "
        "5.5); the authors expect them to move the band.",
        later="Where a whole corpus is repeated, dropout helped and other regularizers did not (Xue et al. "
        "2023); weight decay of 1.0 took about 70% off the penalty of repetition (Lovelace et al. 2026). "
        "Deduplication leaves the perplexity on clean text as it was (Lee et al. 2021).",
        figures=("mitigation-damage", "mitigation-by-passes"),
        tables=("mitigation-arms",),
    ),
    Entry(
        figure="Later laws",
        title="What newer laws say of these runs",
        study="double_descent",
        claim="None of them is in the paper, whose own law is the band of Figure 4.",
        later="Repeated tokens are worth ever less, D' = U + 15.4 U (1 - exp(-R / 15.4)) (Muennighoff et "
        "al. 2023): monotone, hence no hump. The peak lies at 2.31e10 N^-0.96 passes, and losses become "
        "compute (Chudnovsky et al. 2026, one run a cell). An additive penalty P R^delta (N / U)^kappa "
        "(Lovelace et al. 2026) is published without its constants as far as known.",
        figures=("law-data-constrained", "law-compute-equivalent", "law-peak-passes", "law-toy-hump"),
        tables=("laws",),
    ),
)

PAPER = Paper(
    name="repetition_paper",
    title="Learning from repeated data, figure by figure",
    lead="What a small part of the training data costs when it is read over and over: in test loss, in "
    "effective size, in copying and in induction heads. Every figure of the paper asked again, small, with "
    "intervals where it has one run a point.",
    source="Hernandez, Brown, Conerly, DasSarma and others 2022, Scaling Laws and Interpretability of "
    "Learning from Repeated Data, arXiv 2205.10487. Numbers are those of its text and captions; the values "
    "behind its plots were never released.",
    entries=_ENTRIES,
)
