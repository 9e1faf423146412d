"""What the comparisons with transformers share."""

import pytest


@pytest.fixture(scope="module")
def quietly():
    """One thread, since the sizes are small; and transformers says nothing of what it does."""
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)
