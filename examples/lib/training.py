"""Training with pythae's base trainer."""

import os

from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig


def fit(model, data, folder, callbacks=None, eval_data=None, **fields):
    """Train with pythae's base trainer; the path of the folder with the trained model.

    Args:
        model: the model. It is left at its last step; the folder has the best one.
        data: training data, as the pipeline takes them.
        folder: where the pipeline may write.
        callbacks: of the trainer.
        eval_data: validation data, likewise.
        fields: of the config of the trainer.
    """
    pipeline = TrainingPipeline(model, BaseTrainerConfig(output_dir=folder, **fields))
    pipeline(data, eval_data, callbacks=callbacks)
    return os.path.join(pipeline.trainer.training_dir, "final_model")
