"""The frame of the report: its style, light and dark, for desks and phones."""

from __future__ import annotations

from html import escape

from model.simulation.charts import STYLE as CHART_STYLE

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--panel:#f5f7fa;--text:#1d2330;--quiet:#5b6475;
--edge:#dfe4ec;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b0569a;--s4:#b98a00;--s5:#4aa3d8;
--s6:#7a4e2d;--s7:#5b5bd6;--r:#7b8494}
@media (prefers-color-scheme:dark){:root{--paper:#12161e;--panel:#1a202b;--text:#e8ebf2;
--quiet:#a3adbd;--edge:#2d3544;--s0:#5db8f0;--s1:#ff9552;--s2:#3fd6a8;--s3:#e493cf;--s4:#f0c649;
--s5:#9bd4f7;--s6:#d2a37c;--s7:#a6a6ff;--r:#98a2b3}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:15px;font-weight:600;color:var(--quiet);margin:0 0 8px}
.said{font-size:clamp(20px,3.2vw,28px);line-height:1.3;font-weight:650;margin:0 0 8px}
h2{font-size:19px;margin:0 0 4px}
section{margin-top:36px}
p{margin:0 0 10px}
.quiet{color:var(--quiet);font-size:14px}
.two{display:grid;gap:32px;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.two>*{min-width:0}
@media (min-width:900px) and (min-height:640px){.two>:first-child{align-self:start;position:sticky;
top:12px}}
svg.chart{display:block;width:100%;max-width:620px;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 6px;padding:0;list-style:none;
font-size:14px}
.legend svg{display:inline-block;width:24px;height:8px;vertical-align:middle;margin-right:6px}
.scroll{overflow-x:auto;margin-bottom:8px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px 6px 0;text-align:right;border-bottom:1px solid var(--edge);
vertical-align:top}
th{font-weight:600;color:var(--quiet);vertical-align:bottom}
th:first-child{text-align:left}
td,th[scope=row]{white-space:nowrap}
th[scope=row]{color:var(--text);vertical-align:top}
td .quiet{font-size:12px}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
@media (max-width:600px){table{font-size:12.5px}th[scope=row]{white-space:normal}
th,td{padding-right:5px}td .quiet{font-size:11px}}
.images{display:grid;gap:8px;grid-template-columns:repeat(auto-fill,minmax(78px,1fr));
margin:6px 0 22px}
figure{margin:0;min-width:0}
figure img,figure .none{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:contain;
background:var(--panel);border-radius:4px}
figcaption{font-size:11.5px;line-height:1.3;color:var(--quiet);overflow:hidden;overflow-wrap:anywhere;
display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2}
h3{font-size:15px;margin:0;display:inline}
details{margin:8px 0}
.foot{margin-top:36px;border-top:1px solid var(--edge);padding-top:12px}
summary{cursor:pointer;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;font-size:14px;margin:12px 0}
dt{color:var(--quiet)}
dd{margin:0;overflow-wrap:anywhere}
""".strip()


def page(title: str, body: str) -> str:
    """A whole page that a browser lets load nothing; `body` is HTML, `title` is text."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}\n{CHART_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
