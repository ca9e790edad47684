// Numbers, spans and times as people read them, and the elements that show them.

/** An element: `attributes` that are functions listen, the others are set. */
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same, of an SVG. */
function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== undefined && child !== null));
  return element;
}

/** A few of one thing, one of which holds: buttons of a radio group, with the arrow keys. */
function choice(group, options, chosen, choose) {
  const buttons = options.map(([value, text, hint]) =>
    h('button', { type: 'button', role: 'radio', 'data-value': value, title: hint, click: () => pick(value) }, text));
  const mark = value => buttons.forEach(button => {
    const is = button.dataset.value === value;
    button.setAttribute('aria-checked', is);
    button.tabIndex = is ? 0 : -1;
  });
  const pick = value => {
    mark(value);
    choose(value);
  };
  group.addEventListener('keydown', event => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = buttons[(buttons.indexOf(document.activeElement) + by + buttons.length) % buttons.length];
    next.focus();
    pick(next.dataset.value);
  });
  group.replaceChildren(...buttons);
  mark(chosen);
  return group;
}

const NONE = '–';
const GROUPED = digits => new Intl.NumberFormat('en', { maximumSignificantDigits: digits });
const FIVE = GROUPED(5);
const WHOLE_NUMBER = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** A value of a series: five significant digits, whole numbers whole. */
function numberText(value) {
  if (value === undefined || Number.isNaN(value)) return NONE;
  return Math.abs(value) >= 10000 ? WHOLE_NUMBER.format(value) : FIVE.format(value);
}

/** A label of an axis: 12k, 3.5M. */
function axisText(value) {
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (size >= unit) return `${GROUPED(4).format(unit === 1e4 ? value / 1e3 : value / unit)}${letter}`;
  }
  return GROUPED(4).format(value);
}

function dollars(value, digits = 2) {
  if (value === undefined || value === null || Number.isNaN(value)) return NONE;
  const fraction = value !== 0 && Math.abs(value) < 1 ? Math.max(digits, 3) : digits;
  return `$${new Intl.NumberFormat('en', { minimumFractionDigits: digits, maximumFractionDigits: fraction }).format(value)}`;
}

/** A share of one, in percent. */
function percent(share) {
  if (share === undefined || share === null || Number.isNaN(share)) return NONE;
  const value = share * 100;
  if (value !== 0 && Math.abs(value) < 0.001) return '< 0.001%';
  return `${new Intl.NumberFormat('en', { maximumSignificantDigits: 3 }).format(value)}%`;
}

/** Seconds as the two units that matter: 1 h 20 min. */
function spanText(seconds) {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const parts = [];
  let rest = Math.round(seconds);
  for (const [unit, name] of units) {
    const count = Math.floor(rest / unit);
    rest -= count * unit;
    if (count) parts.push(`${WHOLE_NUMBER.format(count)} ${name}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(' ') || '0 s';
}

const LOCAL_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const zoned = (options, timeZone) => new Intl.DateTimeFormat('en-GB', { ...options, timeZone, hourCycle: 'h23' });
const CLOCK = { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit' };
const FULL = { local: zoned(CLOCK), utc: zoned(CLOCK, 'UTC') };
const TIMES = Object.fromEntries(['local', 'utc'].map(zone => {
  const timeZone = zone === 'utc' ? 'UTC' : undefined;
  return [zone, {
    second: zoned({ hour: '2-digit', minute: '2-digit', second: '2-digit' }, timeZone),
    minute: zoned({ hour: '2-digit', minute: '2-digit' }, timeZone),
    day: zoned({ weekday: 'short', day: 'numeric', month: 'short' }, timeZone),
    row: zoned({ weekday: 'short', day: '2-digit', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' }, timeZone),
  }];
}));

/** How far the viewer's clock is from UTC at `time`, in milliseconds. */
function zoneOffset(time, zone) {
  return zone === 'utc' ? 0 : -new Date(time).getTimezoneOffset() * 60000;
}

/** `time` with what it is called in the viewer's zone and in UTC. */
function bothTimes(time) {
  return { local: FULL.local.format(time), utc: FULL.utc.format(time) };
}
