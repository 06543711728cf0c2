"""Equations of the site as MathML; needs the packages of `make docs`."""

import re

import pytest

from facesyn.core.checks import refused
from facesyn.report.site import mathml, with_mathml

pytest.importorskip("latex2mathml")


def test_an_equation_in_a_line_and_one_by_itself():
    shown = with_mathml('<p>So <span class="arithmatex">\\(a &lt; b_t\\)</span>.</p>')
    assert re.fullmatch(r"<p>So <math .+&#x0003C;.+<msub>.+</math>\.</p>", shown)
    shown = with_mathml('<div class="arithmatex">\n\\[ \\frac{1}{2} \\]</div>')
    assert shown.startswith('<div class="equation"><math') and "<mfrac>" in shown


def test_an_unknown_command_is_named():
    refused(lambda: mathml(r"\sinus x", False), "sinus", "is not known")
