/** The report's style sheet: one column of text, two of figures; copper for the student, slate for the teacher. */
export const STYLE = `
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1e2023; --soft: #63666b; --rule: #e3dfd6; --student: #b4552a; --teacher: #35566b; --untuned: #aaa395; --wash: #f4f1ea; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #141618; --card: #1b1e21; --ink: #e9e6e0; --soft: #9b9da1; --rule: #2e3236; --student: #e38f5f; --teacher: #8db4cb; --untuned: #6f706c; --wash: #1f2225; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", sans-serif; font-variant-numeric: tabular-nums lining-nums; }
main { max-width: 1020px; margin: 0 auto; padding: 56px 28px 72px; }
h1, h2, .lead, .figure { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, "Source Serif 4", Georgia, "Noto Serif", serif; font-weight: 500; letter-spacing: -0.01em; }
h1 { font-size: 44px; line-height: 1.1; margin: 6px 0 14px; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 25px; margin: 64px 0 4px; padding-top: 20px; border-top: 1px solid var(--rule); }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 2px; }
p { margin: 0 0 12px; max-width: 68ch; }
.kicker { font-size: 12.5px; letter-spacing: 0.09em; text-transform: uppercase; color: var(--soft); }
.kicker b { color: var(--student); font-weight: 600; }
.soft, figcaption, .note { color: var(--soft); font-size: 14px; }
.lead { font-size: 22px; line-height: 1.4; max-width: 42em; margin: 28px 0 0; }
.hero { display: grid; grid-template-columns: minmax(230px, 0.8fr) 1.2fr; gap: 20px 48px; align-items: center; margin: 36px 0 0; padding: 30px 34px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.figure { font-size: 76px; line-height: 1; color: var(--student); white-space: nowrap; }
.figure small { font-size: 0.5em; }
.hero .kicker { margin-bottom: 10px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; margin: 20px 0 0; padding: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; }
.facts div { box-shadow: 0 0 0 1px var(--rule); padding: 13px 18px 12px; }
.facts dt { font-size: 12.5px; color: var(--soft); }
.facts dd { margin: 0; font-size: 20px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 24px; margin: 22px 0 0; }
figure { margin: 0; padding: 20px 22px 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
figure svg { margin-top: 12px; max-width: 560px; }
.pair figure:last-child:nth-child(odd) { grid-column: 1 / -1; }
figcaption { font-size: 13.5px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-size: 12px; font-family: inherit; fill: var(--ink); }
svg .tick, svg .axis { fill: var(--soft); font-size: 11.5px; } svg .small { font-size: 10.5px; fill: var(--soft); }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .name { font-size: 12.5px; } svg .value { font-weight: 600; fill: var(--c); }
svg .grid { stroke: var(--rule); } svg .mark { stroke: var(--soft); stroke-dasharray: 2 4; }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; } svg .faint { opacity: 0.25; stroke-width: 1; } svg .dashed { stroke-dasharray: 6 4; stroke-width: 1.5; }
svg .whisker { stroke: var(--c); stroke-width: 2.5; stroke-linecap: round; opacity: 0.45; } svg .dot, svg .bar { fill: var(--c); }
.student { --c: var(--student); } .teacher { --c: var(--teacher); } .untuned { --c: var(--untuned); } svg .untuned .value { fill: var(--soft); }
.key { display: inline-block; margin-right: 14px; } .key::before { content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; background: var(--c); }
.scroll { overflow-x: auto; margin: 18px 0 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; white-space: nowrap; }
th, td { padding: 8px 18px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; } tr.us td { font-weight: 600; }
code { font: 12.5px ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: var(--wash); border-radius: 4px; padding: 12px 16px; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--soft); }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--rule); color: var(--soft); font-size: 13px; }
@media (max-width: 760px) { main { padding: 32px 18px 48px; } h1 { font-size: 34px; } .hero { grid-template-columns: 1fr; padding: 24px 20px; } .figure { font-size: 60px; } .lead { font-size: 19px; } }
@media print { body { background: #fff; } figure, .hero, tr { break-inside: avoid; } }
`;
