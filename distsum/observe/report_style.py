"""How a report looks, and what its script does; both stand in the page, which needs nothing else."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark;
  --ground: #fff; --card: #f5f7f9; --line: #d5dbe1; --ink: #16202a; --dim: #55636f; --link: #2f6486;
  --good: #1c6b3a; --bad: #a3122f; --warn: #7a4b00;
  --f0: #dfe3e8; --f1: #8fb4d0; --f2: #3d62a8; --f3: #7a4b00; --f4: #fff; --f5: #7a0020; --sign: #fff;
  --even: #5d8db0; --backup: #c27a00; --retry: #7c56b8; --share: #2c8a76; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #12161b; --card: #1b2128; --line: #36404a; --ink: #e8edf2; --dim: #a2afba; --link: #8cc2e8;
  --good: #6fcf8f; --bad: #ff8c9c; --warn: #ffc53d;
  --f0: #2b313d; --f1: #2f6f9c; --f2: #8fb4e8; --f3: #ffc53d; --f4: #12161b; --f5: #fff0f3; --sign: #12161b;
  --even: #5f9cc4; --backup: #ffc53d; --retry: #b99af0; --share: #5cc8b0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 16px 0 2px; }
p { margin: 4px 0 8px; } .dim, figcaption { color: var(--dim); }
header p, td, dd, code { overflow-wrap: anywhere; }
.state { display: inline-block; font-size: .8rem; font-weight: 700; letter-spacing: .04em; vertical-align: middle;
  margin-left: 10px; padding: 1px 10px; border: 2px solid; border-radius: 12px; color: var(--good); }
.state.bad { color: var(--bad); } .state.warn { color: var(--warn); }
.remark { border-left: 4px solid var(--warn); background: var(--card); padding: 8px 12px; }
.failure { border-left: 4px solid var(--bad); background: var(--card); padding: 8px 12px; overflow-wrap: anywhere; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 14px 0; }
dl.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; }
dt { color: var(--dim); font-size: .8rem; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
dd small { display: block; font-size: .78rem; font-weight: 400; color: var(--dim); }
.wide { overflow-x: auto; } .wide > .line { min-width: 640px; }
svg { display: block; width: 100%; height: auto; } svg.shares { height: 20px; }
figure { margin: 0 0 6px; } figcaption { font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); padding-bottom: 4px; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; vertical-align: bottom; } .n { text-align: right; }
td.n { white-space: nowrap; }
tbody th { color: var(--ink); font-weight: 400; white-space: normal; overflow-wrap: anywhere; min-width: 8em; }
.mark { text-align: center; width: 1.6em; } td.when { white-space: nowrap; color: var(--dim); text-align: right; }
tr.won .mark, tr.helped .mark, tr.good .mark { color: var(--good); } tr.started .mark { color: var(--warn); }
tr.bad .mark { color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; margin: 8px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
ul.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 6px 0; padding: 0;
  font-size: .85rem; color: var(--dim); }
ul.legend svg { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
input.filter { width: 100%; max-width: 420px; margin: 4px 0 8px; padding: 5px 10px; font: inherit; color: inherit;
  background: var(--ground); border: 1px solid var(--line); border-radius: 6px; }
details summary { cursor: pointer; color: var(--link); margin: 8px 0; }
footer { margin-top: 40px; padding-bottom: 40px; color: var(--dim); font-size: .85rem; }
.f0 { fill: var(--f0); } .f1 { fill: var(--f1); } .f2 { fill: var(--f2); } .f3 { fill: var(--f3); }
.f4 { fill: var(--f4); stroke: var(--dim); stroke-width: .8; } .f5 { fill: var(--f5); }
.map text { font: 700 8px system-ui, sans-serif; text-anchor: middle; fill: var(--sign); pointer-events: none; }
.line .tick { stroke: var(--line); stroke-width: 1; } .line .axis { font-size: 11px; fill: var(--dim); }
.line .name { font-size: 11px; text-anchor: end; fill: var(--ink); } .line .hit { fill: transparent; }
.line .axis { text-anchor: middle; } .busy { stroke: var(--f1); fill: none; }
.usual { fill: var(--f1); } .usual.even { fill: var(--even); } .backup { fill: var(--backup); }
.retry, .again { fill: var(--retry); } .share { fill: var(--share); }
.ended { fill-opacity: .28; stroke: var(--bad); stroke-width: 1; stroke-dasharray: 2 1.5; }
rect:hover, g:hover > path { stroke: var(--ink); stroke-width: 1.5; }
.starting { fill: var(--retry); } .waiting { fill: var(--f0); } .reading { fill: var(--f1); }
.adding { fill: var(--even); } .storing { fill: var(--share); } .discarded { fill: var(--backup); }
@media print { details > * { display: block; } input.filter { display: none; } }
@media (max-width: 600px) { body { font-size: 14px; } main, header, footer { padding: 0 12px; }
  th, td { padding-right: 8px; } }
"""

SCRIPT: Final = """
for (const table of document.querySelectorAll("table[data-filter]")) {
  const field = document.createElement("input");
  field.className = "filter"; field.type = "search";
  field.placeholder = field.ariaLabel = table.dataset.filter;
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.parentElement.before(field);
}
"""
"""Adds a field to each long table that hides the rows without a text; the page can be read without."""
