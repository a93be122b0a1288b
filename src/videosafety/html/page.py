"""The page: one static file that works offline. No request leaves it, and untrusted text cannot become markup.

Jinja with autoescape always on, and a ``finalize`` that marks invisible characters in *every* value, so a template
cannot forget it. The one script is inline and allowed by its hash; the policy forbids everything else.

Example:
    >>> html = render("shell.html.j2", title="<b>", lead="", sections=[])
    >>> "<title>&lt;b&gt;</title>" in html
    True
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from videosafety.core.records import Outcome
from videosafety.html.palette import LOOKS
from videosafety.html.text import MAX_CHARACTERS, bounded, visible

SCRIPTS = ("page.js", "cards.js", "samples.js", "review.js")  # of the report: one script, in this order
PEOPLE_SCRIPTS = ("page.js", "cards.js", "people.js")  # of a page on which people judge clips and rows
VERDICT_KEYS = {  # of a person who judges
    Outcome.DEFENDED: "d", Outcome.COMPROMISED: "c", Outcome.HELPFUL: "h", Outcome.WRONG: "w",
    Outcome.OVER_REFUSED: "o", Outcome.INCOHERENT: "i",
}  # fmt: skip


def render(
    template: str, *, package: str = "videosafety.html", scripts: tuple[str, ...] = SCRIPTS, **context: object
) -> str:
    """Render a template of ``package`` with the page's one script; it may extend and import the templates of this one.

    Raises:
        jinja2.UndefinedError: the template names something that ``context`` does not hold.
    """
    return _environment(package, scripts).get_template(template).render(**context)


@cache
def _environment(package: str, scripts: tuple[str, ...]) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("videosafety.html")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join(_asset(name) for name in scripts)
    environment.filters["bounded"] = bounded
    environment.globals.update(
        style=Markup(_asset("style.css")),
        script=Markup(script),
        csp=content_security_policy(script),
        looks=LOOKS,
        verdict_keys=[(outcome.value, VERDICT_KEYS.get(outcome, "")) for outcome in Outcome],
    )
    return environment


def content_security_policy(script: str) -> str:
    """A policy under which the page can show its own pictures and clips and run this one script, and nothing else.

    A page that is a file may read media files beside it, a page from a server media of that server; no other request.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data: 'self' file:; media-src 'self' file:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _finalize(value: object) -> object:
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return visible(bounded(value, MAX_CHARACTERS))
    return value


def _asset(name: str) -> str:
    return files("videosafety.html").joinpath("static", name).read_text(encoding="utf-8")
