"""What the block `data` says of measurements: contradictions end in one line before anything is read."""

import numpy as np
import pytest

from utils.config.check import check
from utils.config.compose import compose
from utils.errors import InputError

MEASURED = ("gpu=-1", "data=measurement", "data.root=somewhere")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.quantity=counts"], "data.quantity=counts: data.gain is missing"),
        (["data.gain=2"], "data.gain=2.0: it is the gain of counts"),
        (["data.quantity=intensity", "data.gain=2"], "data.gain=2.0: it is the gain of counts"),
        (["data.gain=0", "data.quantity=counts"], "data.gain=0"),
        (["data.quantity=phase"], "data.quantity=phase"),
        (["data.center=corner", "task=inpainting"], "data.center=corner: operators.inpainting.Inpainting measures no spectrum"),
        (["data.norm=none", "task=gaussian_blur"], "data.norm=none: operators.blur.GaussianBlur measures no spectrum"),
        (
            ["data.quantity=intensity", "task=hdr"],
            "data.quantity=intensity: operators.hdr.HighDynamicRange measures no spectrum",
        ),
        (["data.channels=1", "task=inpainting"], "data.channels=1: operators.inpainting.Inpainting measures no spectrum"),
        (["data.channels=3"], "data.channels=3"),
        (["data.channels=1", "recombination_step=500"], "data.channels=1: has no channels to exchange"),
        (["data.mask=/no/such/mask.npy"], "data.mask=/no/such/mask.npy: file /no/such/mask.npy not found"),
        (["data.mask=[0,zeros]"], "data.mask=[0, 'zeros']: write a mask file, nan, max, or values"),
        (["data.mask=[]"], "data.mask=[]"),
        (["data.mask=true"], "data.mask=True"),
        (["data.mask=inf"], "data.mask=inf"),
        (["data.dataset="], "data.dataset="),
        (["data.center=middle"], "data.center=middle: write shifted, corner, auto, or [row, column]"),
        (["data.center=[48]"], "data.center=[48]"),
        (["data.center=[-1,48]"], "data.center=[-1, 48]"),
        (["data.center=[true,48]"], "data.center=[True, 48]"),
        (["data.center=[nan,48]"], "data.center=[nan, 48]"),
        (["data.center=[48,49]", "task=inpainting"], "operators.inpainting.Inpainting measures no spectrum"),
        (["data.support=0"], "data.support=0: write a side in pixels, [rows, columns], a mask file, auto"),
        (["data.support=[40]"], "data.support=[40]"),
        (["data.support=[40,2.5]"], "data.support=[40, 2.5]"),
        (["data.support=65"], "data.support=65: must not exceed the field of 64 pixels"),
        (["data.support=[64,65]"], "data.support=[64, 65]: must not exceed the field of 64 pixels"),
        (["data.support=/no/such.npy"], "data.support=/no/such.npy: file /no/such.npy not found"),
        (["data.support=40", "task=gaussian_blur"], "data.support=40: operators.blur.GaussianBlur measures no spectrum"),
        (
            ["data.support=40", "task.demo_langevin.operator._target_=mine.Operator"],
            "data.support=40: an operator of one's own knows nothing of it",
        ),
    ],
)
def test_contradictions_are_one_line(overrides, message):
    with pytest.raises(InputError) as caught:
        check(compose([*MEASURED, *overrides]))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_file_of_no_format_is_refused(tmp_path):
    (tmp_path / "mask.txt").write_text("0 1")
    with pytest.raises(InputError, match="mask.txt: is none of .npy"):
        check(compose([*MEASURED, f"data.mask={tmp_path / 'mask.txt'}"]))


@pytest.mark.heavy
@pytest.mark.parametrize("key", ["quantity=intensity", "mask=0", "center=corner", "support=40"])
def test_images_have_no_convention(key):
    with pytest.raises(InputError, match="data=measurement"):
        check(compose(["gpu=-1", f"data.{key}"]))
    with pytest.raises(InputError, match=f"data.{key}: only data=measurement has it"):
        check(compose(["gpu=-1", f"+data.{key}"]))


@pytest.mark.heavy
@pytest.mark.parametrize(
    "text, mask", [("nan", "nan"), ("[nan,0,max]", ["nan", 0, "max"]), ("-1", -1), ("max", "max"), ("null", None)]
)
def test_masks_are_read_as_words_and_numbers(text, mask):
    assert check(compose([*MEASURED, f"data.mask={text}"])).data.mask == mask


@pytest.mark.heavy
def test_a_mask_may_be_a_file_of_any_format(tmp_path):
    np.save(tmp_path / "mask.npy", np.zeros((4, 4)))
    assert check(compose([*MEASURED, f"data.mask={tmp_path / 'mask.npy'}", "task=inpainting"])).data.quantity == "magnitude"


@pytest.mark.heavy
def test_one_channel_is_an_argument_of_the_operator():
    assert check(compose([*MEASURED, "data.channels=1"])).operator_node["channels"] == 1
    assert "channels" not in check(compose(MEASURED)).operator_node
