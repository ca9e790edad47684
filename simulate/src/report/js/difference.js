// The two worlds of a dry run held against each other: a chart, and a row for each object and each group of nodes.

/** Puts the chart of what Tandem wanted beyond or short of what was below that of the replicas. */
function insertDifference(byGroup, id) {
  const [real, wanted] = WORLDS.map(world => objectOf(world, id)?.wanted);
  if (!real || !wanted) return;
  const world = WORLDS[1];
  const beyond = (more, less) => more.map((count, i) => Math.max(0, count - less[i]));
  const look = (color, pattern) => ({ color, width: 1.4, fill: 0.25, pattern, sparse: true });
  const series = (id, label, values, look) => ({ id, label, world, values, steps: true, look });
  const chart = {
    id: 'difference', group: 'difference', title: 'Difference', unit: 'replicas', height: 110, whole: true, text: numberText,
    series: [
      series('more', 'Tandem wanted more', beyond(wanted, real), look('var(--blue)', 'diagonal')),
      series('less', 'Tandem wanted less', beyond(real, wanted), look('var(--orange)', 'back')),
    ],
  };
  const charts = [...byGroup];
  const place = charts.findIndex(([group]) => group === 'replicas') + 1;
  byGroup.clear();
  for (const [group, drawn] of [...charts.slice(0, place), ['difference', chart], ...charts.slice(place)]) byGroup.set(group, drawn);
}

const signed = (value, text) => `${value > 0 ? '+' : value < 0 ? '−' : ''}${text(Math.abs(value))}`;

/** Columns of the table of differences. */
const DIFFERENCE_FIGURES = [
  { name: 'Differs', hint: 'time in which Tandem wanted another count', text: it => it.differsSeconds ? spanText(it.differsSeconds) : 'never',
    sub: it => it.knownSeconds ? `${percent(it.differsSeconds / it.knownSeconds)} of ${spanText(it.knownSeconds)}` : '' },
  { name: 'Most', hint: 'the greatest difference, + where Tandem wanted more', text: it => signed(it.most, numberText) },
  { name: 'Changes', hint: 'of the count: Tandem, the others', text: it => `${it.changes[1]} · ${it.changes[0]}`, sub: () => 'Tandem · others' },
  { name: 'First', hint: 'changes that Tandem had wanted before the others made them, and those that it agreed to later',
    text: it => `${it.tandemFirst} · ${it.othersFirst}`, sub: () => 'Tandem · others' },
  { name: 'Lead', hint: 'by how long Tandem was first, the median; below zero where the others were',
    text: it => it.leadSeconds === null ? NONE : `${signed(it.leadSeconds, numberText)} s` },
];

/** A row for each object and each group of nodes; `choose` shows an object's charts. */
function differenceTable(choose) {
  const row = it => h('tr', { 'data-difference': it.name },
    h('th', { scope: 'row' }, it.isObject ? h('button', { type: 'button', class: 'link', click: () => choose(it.name), title: 'Show its charts' }, it.name) : it.name),
    ...DIFFERENCE_FIGURES.map(figure => h('td', {}, figure.text(it), h('span', { class: 'sub' }, figure.sub?.(it) ?? ''))));
  return scrolled('Differences', h('table', { class: 'figures differences' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Object'), ...DIFFERENCE_FIGURES.map(figure => h('th', { scope: 'col', title: figure.hint }, figure.name)))),
    h('tbody', {}, ...DIFFERENCES.map(row))));
}
