"""One process of several that train the tiny run with the Trainer of transformers: STUDY ROOT FOLDER."""

import sys
from pathlib import Path

from tests.study.places import Place
from tests.study.test_elsewhere import corpus_of, open_run, spec_of, trainer


def main(study: str, root: str, folder: str) -> None:
    place = Place(Path(study), Path(root))
    spec = spec_of(place)
    with open_run(spec, place) as run:
        corpus = corpus_of(spec, place)
        trainer(run, Path(folder), corpus, per_device_train_batch_size=1, ddp_backend="gloo").train()


if __name__ == "__main__":
    main(*sys.argv[1:])
