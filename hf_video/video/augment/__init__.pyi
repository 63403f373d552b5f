from .augmentation import Augmentation as Augmentation
from .labels import mirror_labels as mirror_labels
from .mixing import Mixing as Mixing
from .mixing import MixingParams as MixingParams
from .mixing import Mixture as Mixture
from .preview import preview_sheet as preview_sheet
from .temporal import TemporalAugmentation as TemporalAugmentation
