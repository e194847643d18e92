// A scripted HTTP server for native tests.
//
// Like the host, it gives no secret to the plugin: what an answer withholds becomes a handle, and what a request placed
// is blotted out of the answer.

import { Encoded } from './encode.js';
import { Failed } from './errors.js';
import { Http, Response, Unsent } from './http.js';
import { handleOf, Secret } from './secret.js';

/**
 * A secret of a test's, by its name. A request shows it as `<name>`, an encoded one as `<sha256:name>` and the like,
 * HTTP Basic as `Basic <user:name>`.
 */
export const secret = (name) => new Secret({ name });

const owned = (name) => new Secret({ name }, true);
const nameOf = (secret) => handleOf(secret).name;
const escape = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

/** Thrown by a test's server: nothing was sent. */
export const away = (reason = 'the server is away') => new Unsent('unavailable', reason);
/** Thrown by a test's server: the request was sent, and no whole answer came. */
export const lost = (reason = 'the answer was lost') => new Unsent('unknown', reason);

/**
 * An answer, with its secrets in it: `json` or `text` is its body.
 *
 * @param {number} status
 * @param {{ json?: unknown, text?: string, headers?: Record<string, string> }} [more]
 */
export const reply = (status, { json, text = '', headers = {} } = {}) => ({
  status,
  headers,
  body: json === undefined ? text : JSON.stringify(json),
});

/**
 * A server that a test scripts: it notes every request and asks the test for the answer. It has the host's session too,
 * with a clock that the test moves.
 */
export class FakeHttp extends Http {
  /** What was sent, in order: method, path, query, headers (names in lower case), body as text, withhold, changes. */
  sent = [];
  /** The session's clock, in seconds. */
  now = 1_800_000_000;
  /** Nothing more can be kept. */
  isFull = false;
  /** What is kept: `{ name, until }` by key. */
  keptSecrets = new Map();

  /**
   * @param {ReturnType<typeof reply> | ((sent: object) => ReturnType<typeof reply>)} answer
   * @param {Record<string, string>} [secrets] Those of the connection.
   */
  constructor(answer, secrets = {}) {
    const self = {};
    super({
      send: (sending) => {
        const placed = [];
        const sent = seen(sending, placed);
        self.fake.sent.push(sent);
        return blind(typeof answer === 'function' ? answer(sent) : answer, sending.withhold, placed);
      },
      credential: (name) => {
        if (!Object.hasOwn(secrets, name)) throw new Failed(`no secret ${name}`);
        return owned(secrets[name]);
      },
      kept: (key, atLeast) => {
        const { name, until } = self.fake.keptSecrets.get(key) ?? { until: 0 };
        const left = until - self.fake.now;
        return left > 0 && left >= atLeast ? owned(name) : undefined;
      },
      keep: (key, secret, valid, unless) => self.fake.#keep(key, nameOf(secret), valid, unless),
      forget: (key, secret) => self.fake.keptSecrets.get(key)?.name === nameOf(secret) && self.fake.keptSecrets.delete(key),
    });
    self.fake = this;
  }

  #keep(key, name, valid, unless) {
    const other = this.keptSecrets.get(key);
    if (this.isFull && !other) throw new Failed('too many secrets are kept');
    if (other && other.name !== name && other.until - this.now > unless) return owned(other.name);
    this.keptSecrets.set(key, { name, until: this.now + valid });
    return owned(name);
  }

  /** The request lines, in order: `GET /v1/a%2Fb?list=true`. */
  get lines() {
    return this.sent.map(({ method, path, query }) => {
      const parameters = Object.entries(query).map(([name, value]) => `${escape(name)}=${escape(value)}`);
      const segments = path.map((segment) => `/${escape(segment)}`).join('');
      return `${method} ${segments}${parameters.length > 0 ? '?' : ''}${parameters.join('&')}`;
    });
  }
}

/** The request as it would go out. The names of the secrets that it places are added to the list. */
function seen(sending, placed) {
  const shown = (part) => {
    if (part instanceof Encoded) {
      const [name, { user, digest, notation }] = [nameOf(part.secret), part.settings];
      placed.push(name);
      return part.how === 'basic' ? `Basic <${user}:${name}>` : `<${digest ?? notation ?? part.how}:${name}>`;
    }
    if (!(part instanceof Secret)) return part;
    placed.push(nameOf(part));
    return `<${nameOf(part)}>`;
  };
  const joined = (parts) => parts.map(shown).join('');
  const denied = (reason) => new Unsent('denied', reason);
  if (sending.path.some((segment) => ['', '.', '..'].includes(segment))) {
    throw denied('a segment of the path is empty or a dot');
  }
  const headers = {};
  for (const [name, parts] of sending.headers) {
    const value = joined(parts);
    // eslint-disable-next-line no-control-regex
    if (!/^[A-Za-z0-9-]+$/.test(name) || /[\u0000-\u001f\u007f]/.test(value)) {
      throw denied('a header with characters that it cannot have');
    }
    headers[name.toLowerCase()] = value;
  }
  let body = '';
  if (sending.kind === 'json') {
    const json = JSON.parse(sending.json);
    for (const [pointer, parts] of sending.secrets) put(json, pointer, joined(parts));
    headers['content-type'] = 'application/json';
    body = JSON.stringify(json);
  } else if (sending.kind === 'form') {
    headers['content-type'] = 'application/x-www-form-urlencoded';
    const value = (part) => (typeof part === 'string' ? escape(part) : shown(part));
    body = sending.form.map(([name, parts]) => `${escape(name)}=${parts.map(value).join('')}`).join('&');
  } else if (sending.kind === 'text') {
    headers['content-type'] = 'text/plain';
    body = joined(sending.parts);
  }
  const { method, path, query, withhold, changes } = sending;
  return { method, path, query: Object.fromEntries(query), headers, body, withhold, changes };
}

const steps = (pointer) =>
  pointer
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
const find = (value, way) =>
  way.reduce((at, step) => (at !== null && typeof at === 'object' && Object.hasOwn(at, step) ? at[step] : undefined), value);

function put(value, pointer, by) {
  const way = steps(pointer);
  find(value, way.slice(0, -1))[way.at(-1)] = by;
}

/** The answer without its secrets. */
function blind({ status, headers, body }, withhold, placed) {
  let json;
  try {
    json = JSON.parse(body);
  } catch {
    json = undefined;
  }
  const withheld = withhold.map((pointer) => {
    const there = pointer === '' ? body : find(json, steps(pointer));
    if (typeof there !== 'string') return undefined;
    if (pointer !== '') put(json, pointer, null);
    return owned(there);
  });
  let shown = withhold.includes('') ? '' : withhold.length > 0 && json !== undefined ? JSON.stringify(json) : body;
  for (const name of placed.filter((name) => name !== '')) shown = shown.replaceAll(name, '[secret]');
  return new Response({ status, headers, body: shown, withheld });
}
