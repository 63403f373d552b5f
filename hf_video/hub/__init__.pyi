from .model_card import write_card as write_card
from .publish import push as push
