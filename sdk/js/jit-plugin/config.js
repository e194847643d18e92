// Typed configuration: what an operator wrote, or what to write instead.
//
// A type is a function of a value, its path and the list to which problems are added; it gives the value as the
// plugin will see it.

const MAX_CONFIG = 1 << 20;
const MAX_SECONDS = 10 * 365 * 24 * 3600;
// The grammar of all durations around the broker: whole seconds, or each unit at most once, the larger one first.
const DURATION = /^(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?$/;
const UNITS = [86400, 3600, 60, 1];

/**
 * @template T
 * @typedef {(value: unknown, path: string, problems: { path: string, message: string }[]) => T} Type
 */

const called = (value) => {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  return { string: 'a text', number: 'a number', boolean: 'true or false', object: 'a table' }[typeof value];
};

const only = (fits, name) => (value, path, problems) => {
  if (!fits(value)) problems.push({ path, message: `must be ${name}, not ${called(value)}` });
  return value;
};

const isTable = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const below = (path, key) => (path === '' ? key : `${path}.${key}`);

/** A text. @type {Type<string>} */
export const text = only((value) => typeof value === 'string', 'a text');
/** A number. @type {Type<number>} */
export const number = only((value) => Number.isFinite(value), 'a number');
/** A whole number. @type {Type<number>} */
export const whole = only((value) => Number.isSafeInteger(value), 'a whole number');
/** `true` or `false`. @type {Type<boolean>} */
export const truth = only((value) => typeof value === 'boolean', 'true or false');

/** A duration: `"90s"`, `"30m"`, `"1h30m"`, `"7d"` or whole seconds. @type {Type<number>} */
export function seconds(value, path, problems) {
  let sum = Number.isSafeInteger(value) ? value : undefined;
  if (typeof value === 'string') {
    const parts = value.match(DURATION);
    if (/^[0-9]{1,9}$/.test(value)) sum = Number(value);
    else if (parts) sum = UNITS.reduce((sum, unit, at) => sum + Number(parts[at + 1] ?? 0) * unit, 0);
  }
  if (sum >= 1 && sum <= MAX_SECONDS) return sum;
  const message = 'must be a duration such as "90s", "30m" or "1h30m", from one second to ten years';
  problems.push({ path, message });
  return 0;
}

/** One of these words. */
export const oneOf = (...words) => (value, path, problems) => {
  if (!words.includes(value)) {
    const written = words.map((word) => JSON.stringify(word)).join(', ');
    problems.push({ path, message: `is ${JSON.stringify(value)}: write one of ${written}` });
  }
  return value;
};

/** A list of that type. */
export const list = (type) => (value, path, problems) => {
  if (!Array.isArray(value)) {
    problems.push({ path, message: `must be a list, not ${called(value)}` });
    return [];
  }
  return value.map((item, index) => type(item, `${path}[${index}]`, problems));
};

/** A table with any keys, whose values are of that type. */
export const map = (type) => (value, path, problems) => {
  const made = Object.create(null);
  if (!isTable(value)) {
    problems.push({ path, message: `must be a table, not ${called(value)}` });
    return made;
  }
  for (const key of Object.keys(value)) made[key] = type(value[key], below(path, key), problems);
  return made;
};

/** A key of a table that may be left out; then it is as if the default had been written. */
export const optional = (type, byDefault) => {
  const same = (value, path, problems) => type(value, path, problems);
  same.whenMissing = (path, problems) => (byDefault === undefined ? undefined : type(byDefault, path, problems));
  return same;
};

/** A table with these keys and no others. */
export const table = (types) => (value, path, problems) => {
  const made = {};
  if (!isTable(value)) {
    problems.push({ path, message: `must be a table, not ${called(value)}` });
    return made;
  }
  const names = Object.keys(types);
  for (const key of Object.keys(value)) {
    if (names.includes(key)) continue;
    const [nearest] = names.filter((name) => distance(key, name) <= 2).sort((a, b) => distance(key, a) - distance(key, b));
    const hint = nearest === undefined ? `there are: ${names.join(', ')}` : `write \`${nearest}\``;
    problems.push({ path: below(path, key), message: `is not a key that this plugin has: ${hint}` });
  }
  for (const name of names) {
    const place = below(path, name);
    if (Object.hasOwn(value, name)) made[name] = types[name](value[name], place, problems);
    else if (types[name].whenMissing) made[name] = types[name].whenMissing(place, problems);
    else problems.push({ path, message: `\`${name}\` is missing: add \`${name} = …\`` });
  }
  return made;
};

/**
 * Reads a configuration (JSON, as the host hands it over): `{ config, problems }`, and with any problem the
 * configuration is of no use.
 */
export function parse(type, json) {
  const problems = [];
  if (json.length > MAX_CONFIG) {
    problems.push({ path: '', message: `is longer than ${MAX_CONFIG} characters: split it over several plugins` });
    return { problems };
  }
  let value;
  try {
    value = json.trim() === '' ? {} : (JSON.parse(json) ?? {});
  } catch (error) {
    problems.push({ path: '', message: `is not JSON: ${error.message}` });
    return { problems };
  }
  return { config: type(value, '', problems), problems };
}

/** Problems as one line. */
export const inWords = (problems) => problems.map(({ path, message }) => `configuration: ${path}: ${message}`).join('; ');

/** Levenshtein's distance. Long texts are not compared. */
function distance(a, b) {
  if (Math.max(a.length, b.length) > 64) return Infinity;
  const row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    let diagonal = row[0];
    row[0] = i;
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = diagonal + (a[i - 1] === b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = Math.min(replaced, diagonal + 1, row[j - 1] + 1);
    }
  }
  return row[b.length];
}
