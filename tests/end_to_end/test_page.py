"""A job by the page alone, in a real browser, on a real service."""

import json
import zipfile

import pytest

from tests.fixtures.browser import PHONE
from tests.fixtures.serving import JUDGED, SHORT, serving


@pytest.mark.nightly
def test_a_job_from_the_form_to_its_files(tab, tmp_path):
    with serving(tmp_path / "home") as service:
        tab.goto(service.url)
        tab.wait_for_selector("#estimate:has-text('steps')")
        assert tab.input_value("#dataset") == "digits"
        assert tab.input_value("#method") == "dream"
        tab.click("#settings summary")
        tab.fill("#params", json.dumps(SHORT))
        tab.fill("#evaluation", json.dumps(JUDGED))
        tab.focus("#evaluation")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")

        tab.wait_for_selector("#status:has-text('running')", timeout=60_000)
        tab.wait_for_selector("#counted:has-text('of 30')", timeout=60_000)
        tab.wait_for_function("document.getElementById('picture').naturalWidth > 0")
        tab.wait_for_selector("#status:has-text('succeeded')", timeout=120_000)
        tab.wait_for_selector("#scores dd >> nth=1")
        assert tab.locator("#scores dt").all_text_contents() == [
            "Trained on the synthetic set",
            "On as many random real images",
        ]
        tab.wait_for_selector("#jobs tbody td:nth-child(4):has-text('%')")
        tab.set_viewport_size(PHONE)
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        with tab.expect_download() as downloading:
            tab.click("#download")
        files = zipfile.ZipFile(downloading.value.path()).namelist()

        tab.click("#short")
        tab.wait_for_selector("#estimate:has-text('500 steps · about ')")

        assert {"synthetic.safetensors", "manifest.json"} <= {*files}
        assert tab.complaints == []
