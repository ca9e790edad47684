// The outcome that is embedded in the page, its series unpacked (pack.rs says how they are written).

const DIGIT = Object.fromEntries([...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].map((c, i) => [c, i]));

function* numbers(text) {
  let number = 0, place = 1;
  for (const c of text) {
    const digit = DIGIT[c];
    number += (digit % 32) * place;
    place *= 32;
    if (digit < 32) {
      yield number;
      number = 0;
      place = 1;
    }
  }
}

/** A series as numbers, NaN where there is none. */
function unpack(series) {
  if (Array.isArray(series)) return Float64Array.from(series, value => value ?? NaN);
  const { exponent, text } = series;
  const real = exponent < 0 ? n => n / 10 ** -exponent : n => n * 10 ** exponent;
  const out = [];
  let last = 0, value = 0;
  const codes = numbers(text);
  for (let code = codes.next(); !code.done; code = codes.next()) {
    if (code.value === 0) {
      for (let times = codes.next().value; times > 0; times--) out.push(last);
      continue;
    }
    if (code.value === 1) {
      last = NaN;
    } else {
      const zigzag = code.value - 2;
      value += zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2;
      last = real(value);
    }
    out.push(last);
  }
  return Float64Array.from(out);
}

function readWorld(world, index) {
  const start = Date.parse(world.axis.start);
  const step = world.axis.stepSeconds * 1000;
  const { at, columns, texts } = world.events;
  return {
    ...world,
    index,
    start,
    step,
    points: world.axis.points,
    end: start + step * Math.max(world.axis.points - 1, 1),
    objects: world.objects.map(object => ({
      ...object,
      id: `${object.namespace}/${object.name}`,
      metrics: object.metrics.map(metric => ({ ...metric, values: unpack(metric.values) })),
      wanted: unpack(object.wanted),
      running: unpack(object.running),
      ready: unpack(object.ready),
      pending: unpack(object.pending),
      unserved: unpack(object.unserved),
    })),
    nodes: {
      pending: unpack(world.nodes.pending ?? []),
      types: world.nodes.types.map(type => ({ ...type, ready: unpack(type.ready), starting: unpack(type.starting) })),
      cost: unpack(world.nodes.costPerHour),
    },
    events: at.map((since, i) => ({
      at: start + since,
      world: index,
      ...Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, texts[column[i]]])),
    })),
  };
}

const DATA = JSON.parse(document.getElementById('data').textContent);
const WORLDS = DATA.outcomes.map(readWorld);
const SWEEP = DATA.sweep;
/** How the two worlds of a dry run differ: the cluster as it was, and as Tandem wanted it. */
const DIFFERENCES = DATA.differences;
/** Whether a series of objects is known: of a dry run only what was asked for is. */
const isKnown = name => WORLDS.some(world => world.objects.some(object => object[name].length > 0));
/** The time that any world covers. */
const WHOLE = {
  from: Math.min(...WORLDS.map(world => world.start)),
  to: Math.max(...WORLDS.map(world => world.end)),
};
/** Every object that any world has, in the order of the first that has it. */
const OBJECTS = [...new Set(WORLDS.flatMap(world => world.objects.map(object => object.id)))];

/** The point of `world` that holds at `time`, -1 outside. */
function pointAt(world, time) {
  const point = Math.floor((time - world.start) / world.step + 1e-9);
  return point >= 0 && point < world.points ? point : -1;
}
