"""The pages outside Streamlit: plain HTML without scripts or external files."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from starlette.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; --back: #f3f5f9; --card: #fff; --text: #172033; --soft: #566075; --line: #c9d1de;
  --main: #2257c9; --on-main: #fff; --bad: #a3271a; --bad-back: #fdecea; --mark: #2f6fed; }
@media (prefers-color-scheme: dark) { :root { --back: #0f141d; --card: #192130; --text: #e6ebf4; --soft: #a3aec0;
  --line: #3c485c; --main: #6ea0ff; --on-main: #0b1220; --bad: #ffb4a8; --bad-back: #3a1d1c; --mark: #6ea0ff; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 "Source Sans", "Source Sans 3", system-ui, -apple-system, "Segoe UI", sans-serif; }
main { width: 100%; max-width: 25rem; background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 2rem; box-shadow: 0 10px 30px rgb(0 0 0 / .08); }
.brand { display: flex; align-items: center; gap: .6rem; margin: 0 0 1.5rem; font-weight: 650; letter-spacing: .01em; }
.brand svg { width: 1.75rem; height: 1.75rem; flex: none; }
.brand path { fill: none; stroke: var(--mark); stroke-width: 2.5; stroke-linecap: round; stroke-linejoin: round; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; }
p { margin: 0 0 1.25rem; color: var(--soft); overflow-wrap: anywhere; }
p.bad { background: var(--bad-back); color: var(--bad); border-radius: .5rem; padding: .6rem .8rem;
  margin-top: 1rem; }
label { display: block; margin: 0 0 .35rem; font-weight: 600; font-size: .925rem; }
input { width: 100%; margin: 0 0 1.1rem; padding: .65rem .75rem; font: inherit; color: inherit;
  background: var(--back); border: 1px solid var(--line); border-radius: .5rem; }
button, a.button { display: block; width: 100%; padding: .7rem 1rem; font: inherit; font-weight: 600; cursor: pointer;
  text-align: center; text-decoration: none; border-radius: .5rem; border: 1px solid var(--main);
  background: var(--main); color: var(--on-main); }
a.button.second { background: transparent; color: var(--main); margin-top: 1rem; }
button:hover, a.button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
code { font-size: .9em; }
"""
_SAFE_STYLE = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_SAFE_STYLE}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
)
_BRAND = (
    '<div class="brand"><svg viewBox="0 0 28 28" aria-hidden="true">'
    '<path d="M3 24c5 0 6-15 11-15s4 10 7 10 3-6 4-15"/></svg>sweeper</div>'
)


def page(title: str, body: str, *, status: int = 200, head: str = "", form: bool = False) -> HTMLResponse:
    """Return a page; ``title`` is text, ``body`` and ``head`` are escaped HTML."""
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"{head}<title>{escape(title)} · sweeper</title><style>{_STYLE}</style></head>"
        f"<body><main>{_BRAND}<h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    policy = f"{_POLICY}; form-action {chr(39)}{'self' if form else 'none'}{chr(39)}"
    return HTMLResponse(html, status, {"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def notice(title: str, *paragraphs: str, status: int, link: tuple[str, str] | None = None) -> HTMLResponse:
    """Return a page of text, with a ``link`` of an address and a label."""
    body = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    return page(title, body + (_button(*link) if link else ""), status=status)


def onward(address: str) -> HTMLResponse:
    """Return a page that continues by itself.

    A browser sent here by another site sends no strict cookies; it does when the next step starts at this page.
    """
    head = f'<meta http-equiv="refresh" content="0; url={escape(address)}">'
    return page("One moment", _button(address, "Continue"), head=head)


def sign_in(
    onward_to: str,
    token: str,
    *,
    passwords: bool,
    oidc_address: str | None,
    provider: str,
    bad: str = "",
    name: str = "",
) -> str:
    """Return the body of the sign-in page: a form, the provider's button, or both."""
    parts = [f'<p class="bad" role="alert">{escape(bad)}</p>' if bad else "<p>to this dashboard</p>"]
    if passwords:
        first, second = ("", " autofocus") if name else (" autofocus", "")
        parts.append(
            '<form method="post" action="/login">'
            f'<input type="hidden" name="token" value="{escape(token)}">'
            f'<input type="hidden" name="next" value="{escape(onward_to)}">'
            '<label for="name">Name</label><input id="name" name="name" required autocomplete="username" '
            f'autocapitalize="none" spellcheck="false" maxlength="128" value="{escape(name)}"{first}>'
            '<label for="password">Password</label><input id="password" name="password" type="password" required '
            f'autocomplete="current-password" maxlength="256"{second}>'
            '<button type="submit">Sign in</button></form>'
        )
    if oidc_address:
        parts.append(_button(oidc_address, f"Sign in with {provider}", second=passwords))
    if not passwords and not oidc_address:
        parts.append("<p>There are no users yet. The administrator adds them with <code>sweeper users add</code>.</p>")
    return "".join(parts)


def sign_out(token: str) -> str:
    """Return the body of the page that confirms signing out."""
    return (
        '<p>A link on another site led here.</p><form method="post" action="/logout">'
        f'<input type="hidden" name="token" value="{escape(token)}"><button type="submit">Sign out</button></form>'
    )


def _button(address: str, text: str, *, second: bool = False) -> str:
    return f'<a class="button{" second" if second else ""}" href="{escape(address)}">{escape(text)}</a>'
