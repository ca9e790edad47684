// Puts the page together.

const view = new View();
const overview = new Overview(view);
const charts = document.getElementById('charts');
const state = { object: OBJECTS[0] ?? ALL, layout: WORLDS.length === 2 && !DIFFERENCES && innerWidth > 1100 ? 'beside' : 'over' };
const root = document.documentElement;

choice(document.getElementById('theme'), [['light dark', 'Auto'], ['light', 'Light'], ['dark', 'Dark']], 'light dark', theme => (root.style.colorScheme = theme));
document.getElementById('print').addEventListener('click', () => print());

const list = new EventList(document.getElementById('events'), view);
view.events = () => list.shown();

// The bar over the charts stays in sight: what is shown, from when to when, and the values' time.
const object = h('select', { id: 'object', 'aria-label': 'Object', change: () => choose(object.value) },
  ...OBJECTS.map(id => h('option', { value: id }, id)), OBJECTS.length > 1 ? h('option', { value: ALL }, 'All objects together') : null);
const button = (text, name, click) => h('button', { type: 'button', title: name, 'aria-label': name, click }, text);
const clock = {
  from: h('span', { id: 'from' }), to: h('span', { id: 'to' }), span: h('span', { id: 'span' }),
  local: h('time', { id: 'local' }), utc: h('time', { id: 'utc' }),
};
const layouts = h('div', { class: 'choice', role: 'radiogroup', 'aria-label': 'Worlds' });
const zones = h('div', { class: 'choice', role: 'radiogroup', 'aria-label': 'Time zone of the axis' });
document.getElementById('bar').append(
  h('div', { class: 'controls' },
    OBJECTS.length > 1 ? h('label', { class: 'object' }, h('span', {}, 'Object'), object) : h('p', { class: 'object' }, OBJECTS[0] ?? 'No object'),
    WORLDS.length > 1 ? choice(layouts, [['beside', 'Side by side'], ['over', 'Overlaid']], state.layout, layout => {
      state.layout = layout;
      build();
    }) : null,
    choice(zones, [['local', 'Local', `Axis in ${LOCAL_ZONE}`], ['utc', 'UTC', 'Axis in UTC']], 'local', zone => {
      view.zone = zone;
      view.redraw();
      list.draw();
    }),
    h('div', { class: 'zoom no-print', role: 'group', 'aria-label': 'Zoom' },
      button('◀', 'Earlier', () => view.pan(-0.5)), button('−', 'Zoom out', () => view.zoom(2)), button('+', 'Zoom in', () => view.zoom(0.5)),
      button('▶', 'Later', () => view.pan(0.5)), button('All', 'The whole time', () => view.reset())),
    h('p', { class: 'clock' },
      h('span', { class: 'cursor' }, clock.local, clock.utc),
      h('span', { class: 'window' }, clock.from, ' – ', clock.to, clock.span))),
  overview.svg,
  h('p', { class: 'hint no-print', id: 'hint' }, 'Drag or turn the wheel to zoom, double-click for all. Keys: arrows move the crosshair, + and − zoom, N and P go to the next and previous event, Esc resets.'));

charts.tabIndex = 0;
charts.setAttribute('role', 'group');
charts.setAttribute('aria-label', 'Charts over one time axis');
charts.setAttribute('aria-describedby', 'hint');
charts.addEventListener('keydown', event => {
  if (event.target.closest('button')) return;
  if (view.key(event)) event.preventDefault();
});

function choose(id) {
  state.object = id;
  object.value = id;
  build();
  view.scrollTo();
}

/** Makes the charts of what is chosen. */
function build() {
  const columns = state.layout === 'beside' || WORLDS.length === 1
    ? WORLDS.map(world => [world, chartsOf(world, state.object)])
    : [[null, overlaid(state.object)]];
  const groups = [...new Set(columns.flatMap(([, definitions]) => definitions.map(chart => chart.group)))];
  view.plots = [];
  charts.classList.toggle('beside', columns.length > 1);
  charts.replaceChildren(...columns.map(([world, definitions]) => {
    const plots = definitions.map(chart => new Plot(chart, world ?? WORLDS[0], view));
    plots.forEach(plot => view.listen(plot));
    view.plots.push(...plots);
    const heading = columns.length > 1 ? h('h3', { class: 'column' }, worldSwatch(world), world.name) : null;
    // What one world lacks leaves its place free, so that rows stay beside each other.
    const figures = groups.map(group => plots.find(plot => plot.chart.group === group)?.figure ?? h('div', { class: 'missing' }, 'not in this world'));
    return h('div', { class: 'column', style: heading ? `grid-row: span ${groups.length + 1}` : null }, heading, ...figures);
  }));
  view.redraw();
}

let asked = false;
/** Draws what is in view, once for all that happened since the last frame. */
view.redraw = () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => draw());
};
view.rebuild = build;

/** Draws all; `width` in place of each chart's own, for paper. */
function draw(width) {
  asked = false;
  const marks = list.shown();
  const { from, to } = view.window;
  const within = marks.filter(event => event.at >= from && event.at <= to);
  const tops = new Map();
  for (const plot of view.plots) tops.set(plot.chart.group, Math.max(tops.get(plot.chart.group) ?? 0, plot.top()));
  for (const plot of view.plots) {
    plot.draw(width ?? Math.max(260, plot.svg.clientWidth), tops.get(plot.chart.group), marksIn(plot, within));
    plot.point(view.cursor);
  }
  const first = view.plots[0];
  const series = first && (first.everySeries().find(series => series.id.startsWith('metric')) ?? first.everySeries()[0]);
  overview.draw(overview.svg.clientWidth || 1000, series, marks);
  charts.dataset.from = from;
  charts.dataset.to = to;
  const name = time => FULL[view.zone].format(time);
  clock.from.textContent = name(from);
  clock.to.textContent = name(to);
  clock.span.textContent = ` (${spanText((to - from) / 1000)})`;
  list.moved();
  document.getElementById('values').dispatchEvent(new Event('toggle'));
}

/** Events that a chart has room to mark. */
const MARKS = 60;

/** The events to mark in a chart: of its world if worlds stand side by side; of many, only what warns. */
function marksIn(plot, events) {
  const own = state.layout === 'beside' && WORLDS.length > 1 ? events.filter(event => event.world === plot.world.index) : events;
  return own.length <= MARKS ? own : own.filter(event => event.kind === 'Warning').slice(0, MARKS);
}

view.pointed = (time, spoken) => {
  const names = time === null ? null : bothTimes(time);
  clock.local.textContent = names ? `${names.local} local` : '';
  clock.utc.textContent = names ? `${names.utc} UTC` : '';
  if (names) clock.utc.dateTime = clock.local.dateTime = new Date(time).toISOString();
  document.getElementById('bar').classList.toggle('pointing', Boolean(names));
  if (spoken && names) {
    const values = view.plots.flatMap(plot => [...plot.values].map(([series, output]) => `${plot.chart.title} ${series.label} ${output.textContent}`));
    document.getElementById('spoken').textContent = `${names.utc} UTC: ${values.join(', ')}`;
  }
};
view.filtered = () => view.redraw();
view.scrollTo = () => {
  list.draw();
  const { top } = charts.getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.6) document.getElementById('time').scrollIntoView({ behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
};

// The values in view as a table, for who would rather read them: at most 120 rows.
const values = document.getElementById('values');
values.addEventListener('toggle', () => {
  if (!values.open) return;
  const world = WORLDS[0];
  const series = view.plots.flatMap(plot => plot.everySeries().map(series => ({ series, plot })));
  const [first, last] = pointsWithin(world, view.window);
  const each = Math.max(1, Math.ceil((last - first + 1) / 120));
  const rows = [];
  for (let i = first; i <= last; i += each) {
    const time = world.start + i * world.step;
    rows.push(h('tr', {}, h('th', { scope: 'row' }, TIMES[view.zone].row.format(time)),
      ...series.map(({ series, plot }) => h('td', {}, plot.chart.text(series.values[pointAt(series.world, time)])))));
  }
  const name = ({ series, plot }) => `${plot.chart.title}: ${series.label}${state.layout === 'beside' && WORLDS.length > 1 ? `, ${series.world.name}` : ''}`;
  values.querySelector('div')?.remove();
  values.append(scrolled('Values', h('table', { class: 'figures' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, view.zone === 'utc' ? 'Time, UTC' : 'Time, local'), ...series.map(entry => h('th', { scope: 'col' }, name(entry))))),
    h('tbody', {}, ...rows))));
});

drawSummary(choose);
const sweep = SWEEP ? new SweepView(document.getElementById('sweep')) : null;
build();
new ResizeObserver(() => view.redraw()).observe(charts);
// On paper the charts have the paper's width; what the pointer showed is gone.
addEventListener('beforeprint', () => {
  view.point(null);
  draw(charts.classList.contains('beside') ? 460 : 940);
  sweep?.draw(940);
});
addEventListener('afterprint', () => {
  view.redraw();
  sweep?.draw();
});
