"""tools/evidence/tuning/unround.py: what it draws would be stored as what it was drawn from."""

import numpy as np

from tools.evidence.tuning.unround import unrounded


def test_drawn_weights_round_to_the_stored_ones_and_fill_the_interval():
    rng = np.random.default_rng(0)
    stored = np.concatenate([rng.standard_normal(5000), 2.0 ** np.arange(-20, 5), [0.0, -0.0, 1e-7]]).astype(np.float16)
    drawn = unrounded(stored, rng)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn.astype(np.float16), stored)
    offset = (drawn - stored.astype(np.float32)) / np.spacing(np.abs(stored)).astype(np.float32)
    assert (offset[:5000] != 0).mean() > 0.99
    assert abs(offset[:5000].mean()) < 0.02 and abs(offset[:5000].std() - 12**-0.5) < 0.02  # uniform on +-1/2
