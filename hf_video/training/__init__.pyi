from .arguments import VideoTrainingArguments as VideoTrainingArguments
from .recipes import load_recipe as load_recipe
from .recipes import recipe_names as recipe_names
from .trainer import VideoTrainer as VideoTrainer
