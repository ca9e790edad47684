// Which charts there are for an object of one world, or for several worlds in one.
//
// A chart: { id, group (what it shares its scale and row with in other worlds), title, unit, height, whole, text, series, stacked }. A series: { id, label, world, values, steps, look }, where
// look is { color, dash, width, fill, pattern, sparse (zero is not drawn) }. Colour never stands alone: lines differ by dash, areas by pattern.

const ALL = '';
/** More kinds of nodes than this are drawn as one. */
const NODE_KINDS = 7;
const LOOKS = {
  metric: { color: 'var(--blue)', width: 1.6 },
  target: { color: 'var(--orange)', width: 1.6, dash: '6 3' },
  unserved: { color: 'var(--red)', width: 1, fill: 0.35, pattern: 'diagonal', sparse: true },
  wanted: { color: 'var(--orange)', width: 1.6, dash: '5 3' },
  running: { color: 'var(--purple)', width: 1.4, dash: '1.5 2.5' },
  ready: { color: 'var(--green)', width: 2, fill: 0.14 },
  pending: { color: 'var(--red)', width: 1.6, fill: 0.25, pattern: 'diagonal', sparse: true },
  cost: { color: 'var(--blue)', width: 1.8, fill: 0.12 },
  starting: { color: 'var(--muted)', width: 1, fill: 0.12, pattern: 'upright' },
};
const WORLD_COLORS = ['var(--blue)', 'var(--orange)', 'var(--green)', 'var(--purple)', 'var(--red)', 'var(--sky)'];
const WORLD_DASHES = ['', '7 3', '2 2.5', '9 3 2 3', '4 2', '1.5 4'];
const KIND_COLORS = ['var(--blue)', 'var(--orange)', 'var(--green)', 'var(--sky)', 'var(--purple)', 'var(--red)', 'var(--muted)', 'var(--ink)'];
const PATTERNS = ['none', 'diagonal', 'dots', 'across', 'back', 'upright', 'cross', 'none'];

const worldLook = (world, more = {}) => ({
  color: WORLD_COLORS[world.index % WORLD_COLORS.length],
  dash: WORLD_DASHES[world.index % WORLD_DASHES.length],
  width: 1.8,
  ...more,
});

/** The object of that name in `world`; the sum of all for [`ALL`]. */
function objectOf(world, id) {
  if (id !== ALL) return world.objects.find(object => object.id === id);
  world.all ??= {
    id: 'all objects',
    metrics: [],
    unserved: new Float64Array(world.points),
    ...Object.fromEntries(['wanted', 'running', 'ready', 'pending'].map(name =>
      [name, isKnown(name) ? added(world.objects.map(object => object[name]), world.points) : new Float64Array()])),
  };
  return world.all;
}

function added(all, points) {
  const sum = new Float64Array(points);
  for (const values of all) for (let i = 0; i < points; i++) sum[i] += values[i] || 0;
  return sum;
}

/** What the ready pods are meant for, without pods the replicas that were asked for: the target of each, or the target of the whole. */
function capacity(object, metric) {
  const pods = object.ready.length ? object.ready : object.wanted;
  return pods.map(pods => metric.perReplica ? pods * metric.target : metric.target);
}

/** The kinds of nodes that matter most by hours, and the rest as one. */
function nodeKinds(world) {
  if (world.kinds) return world.kinds;
  const hours = type => type.ready.reduce((sum, count) => sum + count, 0) + type.starting.reduce((sum, count) => sum + count, 0);
  const ranked = world.nodes.types.map(type => ({ ...type, hours: hours(type) })).filter(type => type.hours > 0)
    .sort((a, b) => b.hours - a.hours || (a.name < b.name ? -1 : 1));
  const rest = ranked.splice(ranked.length > NODE_KINDS ? NODE_KINDS - 1 : NODE_KINDS);
  if (rest.length) ranked.push({ name: `${rest.length} others`, ready: added(rest.map(type => type.ready), world.points) });
  world.kinds = ranked;
  return ranked;
}

/** Dollars spent until each point. */
function spent(world) {
  let sum = 0;
  return world.nodes.cost.map(rate => (sum += (rate || 0) * world.step / 3600000));
}

const has = values => values?.some(value => value > 0);

/** The charts of one world. */
function chartsOf(world, id) {
  const object = objectOf(world, id);
  const series = (name, label, values, steps = true, look = LOOKS[name]) => ({ id: name, label, world, values, steps, look });
  const charts = [];
  // Unserved load is told in the unit of the first metric that a load makes: a calendar has none.
  const measured = object?.metrics.find(metric => !/^s\d+-cron-/.test(metric.name));
  object?.metrics.forEach((metric, i) => {
    const kind = metric => metric.name.replace(/^s\d+-/, '');
    const before = object.metrics.slice(0, i).filter(other => kind(other) === kind(metric)).length;
    charts.push({
      id: `metric-${i}`,
      // Another trigger before it changes its number, not what it is.
      group: `metric-${kind(metric)}-${before}`,
      title: metric.name,
      unit: metric.perReplica ? `target ${numberText(metric.target)} for each replica` : `target ${numberText(metric.target)}`,
      height: 190,
      text: numberText,
      series: [
        metric === measured && has(object.unserved) && series('unserved', 'Unserved', object.unserved),
        series('target', metric.perReplica ? `Target × ${object.ready.length ? 'ready' : 'replicas'}` : 'Target', capacity(object, metric)),
        series('metric', 'Metric', metric.values, false),
      ].filter(Boolean),
    });
  });
  if (object) {
    charts.push({
      id: 'replicas', title: 'Replicas', unit: 'pods', height: 190, whole: true, text: numberText, bounds: object.replicaBounds,
      series: [series('ready', 'Ready', object.ready), series('running', 'Running', object.running), series('wanted', 'Wanted', object.wanted)]
        .filter(series => series.values.length),
    });
    if (object.pending.length) charts.push({ id: 'pending', title: 'Pending pods', unit: 'pods', height: 110, whole: true, text: numberText, series: [series('pending', 'Pending', object.pending)] });
  }
  if (has(world.nodes.pending)) {
    charts.push({ id: 'waiting', title: 'Pods without a node', unit: 'pods', height: 110, whole: true, text: numberText, series: [series('pending', 'Pending', world.nodes.pending)] });
  }
  const kinds = nodeKinds(world);
  if (kinds.length) {
    const starting = added(world.nodes.types.map(type => type.starting), world.points);
    charts.push({
      id: 'nodes', title: 'Nodes', unit: 'by type, stacked', height: 190, whole: true, text: numberText,
      stacked: [
        ...kinds.map((kind, i) => series(`type-${i}`, kind.name, kind.ready, true,
          { color: KIND_COLORS[i % KIND_COLORS.length], width: 1.2, fill: 0.4, pattern: PATTERNS[i % PATTERNS.length] })),
        series('starting', 'Starting', starting),
      ],
      series: [],
    });
  }
  if (has(world.nodes.cost)) {
    charts.push({
      id: 'cost', title: 'Cost', unit: 'dollars an hour', height: 130, text: value => dollars(value),
      series: [series('cost', 'An hour', world.nodes.cost), { ...series('spent', 'So far', spent(world), true, {}), textOnly: true }],
    });
  }
  return charts.map(chart => ({ group: chart.id, ...chart }));
}

/** The charts of all worlds in one: what matters most of each. */
function overlaid(id) {
  const byGroup = new Map();
  const one = (chart, series) => {
    if (!byGroup.has(chart.group)) byGroup.set(chart.group, { ...chart, series: [], stacked: undefined });
    byGroup.get(chart.group).series.push(...series);
  };
  for (const world of WORLDS) {
    for (const chart of chartsOf(world, id)) {
      const find = name => chart.series.find(series => series.id === name);
      const named = (series, label, look) => ({ ...series, id: `${series.id}-${world.index}`, label, look: worldLook(world, look) });
      const name = world.name;
      if (chart.id.startsWith('metric')) {
        // The history is the same in each world, unless one of them has another query.
        const metric = find('metric');
        const told = byGroup.get(chart.group)?.series.some(other => other.look === LOOKS.metric && same(other.values, metric.values));
        if (!told) one(chart, [{ ...metric, id: `metric-${world.index}`, look: LOOKS.metric, label: byGroup.has(chart.group) ? `Metric, ${name}` : 'Metric' }]);
        const target = find('target');
        one(chart, [named(target, `${target.label}, ${name}`, { dash: WORLD_DASHES[(world.index + 1) % WORLD_DASHES.length] })]);
      } else if (chart.id === 'replicas' && DIFFERENCES) {
        one(chart, [named(find('wanted'), name)]);
      } else if (chart.id === 'replicas') {
        one(chart, [named(find('wanted'), `Wanted, ${name}`, { width: 1, dash: '1 2' }), named(find('ready'), `Ready, ${name}`)]);
      } else if (chart.id === 'nodes') {
        const total = added(chart.stacked.map(series => series.values), world.points);
        one({ ...chart, unit: 'of all types, ready and starting' }, [named({ ...chart.stacked[0], id: 'nodes', values: total }, name)]);
      } else if (chart.id === 'cost') {
        one(chart, [named(find('cost'), name), { ...find('spent'), id: `spent-${world.index}`, label: `So far, ${name}` }]);
      } else {
        one(chart, [named(find('pending'), name, { pattern: undefined })]);
      }
    }
  }
  if (DIFFERENCES) insertDifference(byGroup, id);
  const bounds = new Set(WORLDS.map(world => String(objectOf(world, id)?.replicaBounds)));
  return [...byGroup.values()].map(chart => ({ ...chart, overlaid: true, bounds: bounds.size === 1 ? chart.bounds : undefined }));
}

function same(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i] || (Number.isNaN(value) && Number.isNaN(b[i])));
}
