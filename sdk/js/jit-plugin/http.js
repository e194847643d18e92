// Requests to the connection's HTTP server, and to no other.
//
// A request is data that the host turns into a request: it escapes the path's segments, places secrets, and takes the
// secrets out of answers. A `Secret` may stand wherever a text may stand in a header, a form, a text body, or as a value
// within a JSON body:
//
//   http.send('POST', ['users'], { json: { name, password }, headers: { 'x-token': token } });
//
// HTTP Basic, other notations and hashes of secrets are in encode.js.

import { pairs, table, text, texts, whole } from './checks.js';
import { Encoded, Joined } from './encode.js';
import { Failed, OutcomeUnknown, Retryable } from './errors.js';
import { Secret } from './secret.js';

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'];
const MOST_DEPTH = 64;

/** What a transport throws when no answer came: nothing was sent (`unavailable`), it was sent (`unknown`), or the host
 * would not send it (`denied`). */
export class Unsent extends Error {
  constructor(kind, reason) {
    super(reason);
    this.kind = kind;
  }
}

/** An answer, whatever its status. */
export class Response {
  /** @param {{ status: number, headers: Record<string, string>, body: string, withheld: (Secret | undefined)[] }} answer */
  constructor({ status, headers, body, withheld }) {
    /** The status. */
    this.status = status;
    /** `content-type`, `retry-after`, `location`, `www-authenticate`, where they are there. */
    this.headers = headers;
    /** The body without its secrets: those that the request placed are blotted out, those it withheld are null. */
    this.body = body;
    /** One for each pointer of `withhold`: undefined where the body has no text there. */
    this.withheld = withheld;
  }

  /** The body as JSON; throws `Failed` when it is none. */
  json() {
    try {
      return JSON.parse(this.body);
    } catch {
      throw new Failed('the answer is not JSON');
    }
  }

  /** The seconds of `retry-after` (RFC 9110, section 10.2.3) in milliseconds, where it has seconds. */
  get retryAfterMs() {
    const value = (this.headers['retry-after'] ?? '').trim();
    return /^[0-9]{1,9}$/.test(value) ? Number(value) * 1000 : undefined;
  }
}

/** The connection's server, and the broker's own credentials for it. */
export class Http {
  #transport;

  constructor(transport) {
    this.#transport = transport;
  }

  /**
   * Sends a request and returns the whole answer, whatever its status.
   *
   * `path` has the segments below the connection's URL. One of `json`, `form` and `text` is the body. `withhold` has
   * JSON Pointers (RFC 6901) of the answer's secrets, `''` for the whole body. `changes` marks a GET that may change
   * something at the backend; every other method counts as a change, but for POSTs that the description lists as
   * `harmless-posts`.
   *
   * Throws `Retryable` when nothing was sent, `OutcomeUnknown` when no whole answer came to what may have changed
   * something, `Retryable` when none came to a question, and `Failed` when the host would not send it.
   *
   * @param {'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'} method
   * @param {string[]} path
   * @param {{
   *   query?: Record<string, string>,
   *   headers?: Record<string, string | Secret | Encoded | (string | Secret | Encoded)[]>,
   *   json?: unknown,
   *   form?: Record<string, string | Secret>,
   *   text?: string | Secret | (string | Secret)[],
   *   withhold?: string[],
   *   changes?: boolean,
   * }} [more]
   */
  send(method, path, more = {}) {
    const sending = checked(method, path, more);
    try {
      return this.#transport.send(sending);
    } catch (error) {
      if (!(error instanceof Unsent)) throw error;
      if (error.kind === 'denied') throw new Failed(error.message);
      const isQuestion = sending.method === 'GET' && !sending.changes;
      if (error.kind === 'unavailable' || isQuestion) throw new Retryable(error.message);
      throw new OutcomeUnknown(error.message);
    }
  }

  /** A secret of the connection's `secrets` table. Throws `Failed` when there is none of that name. */
  credential(name) {
    return this.#transport.credential(text('name', name));
  }

  /** What an earlier call kept under the key, when it is valid for at least so many more seconds; else undefined. */
  kept(key, atLeastSeconds = 0) {
    return this.#transport.kept(text('key', key), whole('atLeastSeconds', atLeastSeconds));
  }

  /**
   * Keeps a secret that is valid for so many seconds; returns the one that now holds, which is another call's where
   * that is valid for longer than `unlessValidFor` seconds. Throws `Failed` when it cannot be kept.
   */
  keep(key, secret, validSeconds, unlessValidFor = 0) {
    const [valid, unless] = [whole('validSeconds', validSeconds), whole('unlessValidFor', unlessValidFor)];
    return this.#transport.keep(text('key', key), only(secret), valid, unless);
  }

  /** Forgets what is kept under the key, if it is this secret. Returns whether it was. */
  forget(key, secret) {
    return this.#transport.forget(text('key', key), only(secret));
  }
}

/**
 * A key to keep something under: what it is, and what it belongs to. The host takes 128 bytes at most, and names of a
 * configuration may be longer: they go in as a hash (FNV-1a, 64 bits).
 */
export function key(what, ...of) {
  let hash = 0xcbf29ce484222325n;
  for (const part of of) {
    // No byte of UTF-8 is 0xff: parts do not run into each other.
    for (const byte of [...new TextEncoder().encode(part), 0xff]) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    }
  }
  return `${what} ${hash.toString(16).padStart(16, '0')}`;
}

function only(secret) {
  if (!(secret instanceof Secret)) throw new TypeError('what is kept is a Secret');
  return secret;
}

/** The request with all its parts told apart, as the transport gets it. */
function checked(method, path, more) {
  if (!METHODS.includes(method)) throw new TypeError(`the method is one of ${METHODS.join(', ')}`);
  table('a request', more, ['query', 'headers', 'json', 'form', 'text', 'withhold', 'changes']);
  const bodies = ['json', 'form', 'text'].filter((name) => more[name] !== undefined);
  if (bodies.length > 1) throw new TypeError(`a request has one body, not ${bodies.join(' and ')}`);
  if (more.changes !== undefined && typeof more.changes !== 'boolean') throw new TypeError('changes is true or false');
  const secrets = [];
  const json = more.json === undefined ? '' : JSON.stringify(withoutSecrets(more.json, '', secrets, 0));
  return {
    method,
    path: texts('path', path),
    query: pairs('query', more.query ?? {}),
    headers: fields('headers', more.headers ?? {}),
    kind: bodies[0] ?? 'none',
    json,
    secrets,
    form: fields('form', more.form ?? {}),
    parts: more.text === undefined ? [] : parts('text', more.text),
    withhold: texts('withhold', more.withhold ?? []),
    changes: more.changes ?? false,
  };
}

const fields = (what, given) => Object.entries(given).map(([name, value]) => [name, parts(`${what}.${name}`, value)]);

/** One text or secret, or a list of them, which are written one after the other. */
function parts(what, value) {
  const given = value instanceof Joined ? value.parts : value;
  const list = Array.isArray(given) ? given : [given];
  return list.map((part, index) =>
    part instanceof Secret || part instanceof Encoded ? part : text(`${what}[${index}]`, part),
  );
}

/** The value with an empty text in the place of each secret; which ones, and where, is added to the list. */
function withoutSecrets(value, pointer, found, depth) {
  if (depth > MOST_DEPTH) throw new TypeError(`json is deeper than ${MOST_DEPTH}`);
  if (value instanceof Secret || value instanceof Encoded || value instanceof Joined) {
    if (pointer === '') throw new TypeError('json must not be a Secret as a whole: put it into an object');
    found.push([pointer, parts(`json${pointer}`, value)]);
    return '';
  }
  if (Array.isArray(value)) {
    return value.map((item, index) => withoutSecrets(item, `${pointer}/${index}`, found, depth + 1));
  }
  if (typeof value === 'object' && value !== null) {
    const step = (name) => `${pointer}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(entries.map(([name, item]) => [name, withoutSecrets(item, step(name), found, depth + 1)]));
  }
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`json${pointer} is no number of JSON`);
  return value;
}
