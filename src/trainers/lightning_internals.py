"""Private parts of Lightning that training needs, one function each; tests/test_lightning_internals.py checks them."""

import lightning.pytorch as pl


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the training batch that is ending."""
    # There is no public way, and a checkpoint before a validation that is due would be resumed without it.
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
