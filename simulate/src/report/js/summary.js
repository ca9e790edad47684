// What is said before the charts: the whole in figures, and a row for each object.

const difference = (value, base, text) => {
  const delta = value - base;
  if (!base || Math.abs(delta / base) < 0.0005) return delta === 0 || !base ? '' : '≈ 0%';
  return value / base >= 3 ? `× ${GROUPED(3).format(value / base)}` : `${delta > 0 ? '+' : '−'}${text(Math.abs(delta / base))}`;
};
const relative = share => `${new Intl.NumberFormat('en', { maximumFractionDigits: share < 0.1 ? 1 : 0 }).format(share * 100)}%`;

/** Figures of a world: name, value, text, and what it means. */
const WORLD_FIGURES = [
  { name: 'Cost', of: world => world.summary.cost, text: value => dollars(value), hint: 'of the nodes, in dollars' },
  { name: 'Unserved load', of: world => world.summary.unservedShare, text: percent, hint: 'load beyond ready pods; worst object' },
  { name: DIFFERENCES ? 'Replica-hours' : 'Pod-hours', of: world => world.summary.podHours, text: numberText, hint: DIFFERENCES ? 'replicas that were asked for × hours' : 'running pods × hours' },
  { name: 'Node-hours', nodes: true, of: world => world.summary.nodeHours, text: numberText, hint: 'from the request on' },
  { name: 'Scale events', of: world => world.summary.scaleEvents, text: numberText, hint: 'changes of replica counts' },
  { name: 'Nodes added', nodes: true, of: world => world.summary.nodesAdded, text: numberText, hint: 'asked for' },
  { name: 'Nodes removed', nodes: true, of: world => world.summary.nodesRemoved, text: numberText, hint: 'taken away' },
];

const NODES = WORLDS.some(world => world.nodes.types.length > 0);
const shownFigures = () => WORLD_FIGURES.filter(figure => (NODES || !figure.nodes) && WORLDS.some(world => figure.of(world) !== null));

/** Figures of an object. */
const OBJECT_FIGURES = [
  { name: 'Replicas', hint: 'wanted: least, mean, most', text: (o, object) => `${o.replicasMin} · ${GROUPED(3).format(o.replicasMean)} · ${o.replicasMax}`, sub: object => `of ${object.replicaBounds[0]} to ${object.replicaBounds[1]}` },
  { name: 'Pod-hours', hint: 'running pods × hours', text: o => numberText(o.podHours) },
  { name: 'Unserved', of: 'unserved', hint: 'share of the load beyond what ready pods are meant for', text: o => percent(o.unservedShare), bad: o => o.unservedShare > 0.001 },
  { name: 'At max', hint: 'time at the maximum', text: o => spanText(o.atMaxSeconds) },
  { name: 'Spike to capacity', of: 'ready', hint: 'longest time from load beyond capacity to capacity for it', text: o => spanText(o.spikeToCapacitySeconds) },
  { name: 'Pending', of: 'pending', hint: 'time that pods were pending, summed over pods', text: o => spanText(o.pendingPodSeconds) },
  { name: 'Scale events', hint: 'changes of the replica count', text: o => numberText(o.scaleEvents) },
].filter(figure => !figure.of || isKnown(figure.of));

const worldSwatch = world => WORLDS.length > 1 ? swatch({ look: worldLook(world) }, false) : '';

function tiles(world) {
  return h('dl', { class: 'tiles' }, ...shownFigures().map(figure =>
    h('div', {}, h('dt', {}, figure.name), h('dd', {}, figure.text(figure.of(world))), h('p', {}, figure.hint))));
}

/** Worlds in columns, each beside the first. */
function comparison() {
  const cell = (figure, world) => {
    const value = figure.of(world);
    const delta = world.index && value !== null ? difference(value, figure.of(WORLDS[0]), relative) : '';
    return h('td', {}, figure.text(value), world.index ? h('span', { class: 'delta' }, delta) : '');
  };
  const table = scrolled('Worlds compared', h('table', { class: 'figures compared' },
    h('thead', {}, h('tr', {}, h('td'), ...WORLDS.map(world => h('th', { scope: 'col' }, worldSwatch(world), world.name)))),
    h('tbody', {}, ...shownFigures().map(figure =>
      h('tr', {}, h('th', { scope: 'row', title: figure.hint }, figure.name), ...WORLDS.map(world => cell(figure, world)))))));
  table.classList.add('narrow');
  return table;
}

/** A row for each object of each world; `choose` shows an object's charts. */
function objectTable(choose) {
  const rows = OBJECTS.flatMap(id => WORLDS.map(world => {
    const object = world.objects.find(object => object.id === id);
    if (!object) return h('tr', {}, h('th', { scope: 'row' }, id, worldName(world)), h('td', { colspan: OBJECT_FIGURES.length }, 'not in this world'));
    const name = h('th', { scope: 'row' },
      h('button', { type: 'button', class: 'link', click: () => choose(id), title: 'Show its charts' }, id), worldName(world), h('span', { class: 'sub' }, object.kind));
    const cells = OBJECT_FIGURES.map(figure =>
      h('td', { class: figure.bad?.(object.summary) ? 'bad' : null }, figure.text(object.summary, object), figure.sub ? h('span', { class: 'sub' }, figure.sub(object)) : ''));
    return h('tr', {}, name, ...cells);
  }));
  return scrolled('Objects', h('table', { class: 'figures' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Object'), ...OBJECT_FIGURES.map(figure => h('th', { scope: 'col', title: figure.hint }, figure.name)))),
    h('tbody', {}, ...rows)));
}

const worldName = world => WORLDS.length > 1 ? h('span', { class: 'world' }, worldSwatch(world), world.name) : '';

const scrolled = (label, table) => h('div', { class: 'scrolled', tabindex: 0, role: 'region', 'aria-label': label }, table);

function drawSummary(choose) {
  const world = WORLDS[0];
  const titles = WORLDS.map(world => world.name);
  document.getElementById('title').textContent = titles.join(' · ');
  const { local, utc } = bothTimes(WHOLE.from);
  fill(document.getElementById('subtitle'), {}, [
    h('span', {}, `${spanText((WHOLE.to - WHOLE.from) / 1000)} from ${utc} UTC`),
    local === utc ? null : h('span', {}, `${local} in ${LOCAL_ZONE}`),
    h('span', {}, `a point every ${spanText(world.step / 1000)}`),
  ]);
  const everywhere = note => WORLDS.every(world => world.notes.includes(note));
  const notes = [...new Set(WORLDS.flatMap(world => world.notes.map(note => everywhere(note) ? note : `${world.name}: ${note}`)))];
  if (notes.length) {
    const section = document.getElementById('notes');
    section.hidden = false;
    section.append(h('h2', {}, DIFFERENCES ? 'Notes on the record' : 'Notes on the input'), h('ul', {}, ...notes.map(note => h('li', {}, note))));
  }
  const section = document.getElementById('summary');
  section.append(WORLDS.length > 1 ? comparison() : tiles(world));
  if (DIFFERENCES) section.append(differenceTable(choose));
  else if (OBJECTS.length) section.append(objectTable(choose));
}
