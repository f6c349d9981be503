"""TEMPORARY until the models branch is merged."""

import torch

from cosd_core.models.language_model import LanguageModel as BaseLanguageModel
from cosd_core.models.session import Session
from cosd_core.sampling.predict import predict


class _Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


class PredictingSession(Session):
    def setup(self, role, calibration):
        self.role, self.calibration = role, calibration
        return self

    def submit(self, rows, positions, *, keep_logits=False):
        logits = self.logits(rows, last=max(map(len, positions)))
        places = logits.shape[1]
        wanted = [row[places - len(each) :] for row, each in zip(logits, positions, strict=True) if each]
        flat = [p for each in positions for p in each]
        found = iter(
            predict(torch.cat(wanted), flat, self.role, keep_logits=keep_logits, calibration=self.calibration)
        )
        return _Done([[next(found) for _ in each] for each in positions])

    def predict(self, rows, positions, *, keep_logits=False):
        return self.submit(rows, positions, keep_logits=keep_logits).result()


def open_session(self, *, vocabulary, role="draft", calibration=1.0):
    return PredictingSession(self, vocabulary=vocabulary).setup(role, calibration)


BaseLanguageModel.open_session = open_session
