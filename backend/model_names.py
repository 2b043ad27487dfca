"""What the settings name in `model`, checked before anything is started or connected."""

from __future__ import annotations

from backend.errors import SettingError
from backend.settings import PREFIX, Settings
from model.acquisition import require
from model.backbones import BACKBONES
from model.backbones.pyramid import PYRAMIDS
from model.detection.acquisition import BOX_ACQUISITIONS
from model.detection.passes import BOX_ESTIMATORS
from model.errors import ModelError
from model.uncertainty import ESTIMATORS


def check_model_names(settings: Settings) -> None:
    """Refuse names that do not exist, and a rule that the estimator's passes cannot feed.

    Otherwise the first training would find out, after the first labels.

    Raises:
        SettingError: with the variable, the value and what would work.
    """
    variable = "BACKBONE"
    try:
        BACKBONES[settings.backbone]
        variable = "PYRAMID"
        PYRAMIDS[settings.pyramid]
        variable = "BOX_ESTIMATOR"
        BOX_ESTIMATORS[settings.box_estimator]
        variable = "BOX_ACQUISITION"
        BOX_ACQUISITIONS[settings.box_acquisition]
        variable = "ESTIMATOR"
        family = ESTIMATORS[settings.estimator]
        variable = "ACQUISITION"
        require(settings.acquisition, passes=family.passes, joint=family.joint)
    except ModelError as exc:
        raise SettingError(f"{PREFIX}{variable}: {exc}") from exc
