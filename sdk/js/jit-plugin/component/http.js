// The host's HTTP connection and session.

import { Encoded } from '../encode.js';
import { Failed } from '../errors.js';
import { Http, Response, Unsent } from '../http.js';
import { handleOf, Secret } from '../secret.js';

const PREFIXES = { '2a': 'two-a', '2b': 'two-b', '2y': 'two-y' };

function encoding({ how, settings }) {
  const { digest, notation, salt, saltBytes, cost, prefix, iterations } = settings;
  switch (how) {
    case 'written':
      return { tag: 'written', val: notation };
    case 'digest':
      return { tag: 'digest', val: [digest, notation] };
    case 'salted-digest':
      return { tag: 'salted-digest', val: { digest, saltPlace: salt, saltBytes, notation } };
    case 'bcrypt':
      return { tag: 'bcrypt', val: { prefix: PREFIXES[prefix], cost } };
    default:
      return { tag: 'pbkdf2', val: { digest, iterations } };
  }
}

function part(given) {
  if (given instanceof Secret) return { tag: 'secret', val: handleOf(given) };
  if (!(given instanceof Encoded)) return { tag: 'text', val: given };
  const handle = handleOf(given.secret);
  if (given.how === 'basic') return { tag: 'basic', val: [given.settings.user, handle] };
  return { tag: 'encoded', val: [handle, encoding(given)] };
}

const fields = (fields) => fields.map(([name, parts]) => ({ name, value: parts.map(part) }));

function body({ kind, json, secrets, form, parts }) {
  if (kind === 'json') {
    return { tag: 'json', val: { text: json, secrets: fields(secrets) } };
  }
  if (kind === 'form') return { tag: 'form', val: fields(form) };
  if (kind === 'text') return { tag: 'text', val: parts.map(part) };
  return { tag: 'none' };
}

const owned = (handle) => (handle === undefined || handle === null ? undefined : new Secret(handle, true));

/** What the contract calls an error, as one of the SDK's. */
function orFailed(call) {
  try {
    return call();
  } catch (error) {
    throw typeof error?.payload === 'string' ? new Failed(error.payload) : error;
  }
}

/** @param {object} http The interface `jit:plugin/http`. @param {object} session `jit:plugin/session`. */
export function hostHttp(http, session) {
  // An engine lets go of handles when it collects garbage: each credential is asked for once in a call.
  const credentials = new Map();
  return new Http({
    send(sending) {
      const { method, path, query, headers, withhold, changes } = sending;
      const request = {
        method: method.toLowerCase(),
        path,
        query,
        headers: fields(headers),
        body: body(sending),
        withhold,
        changes,
      };
      let answer;
      try {
        answer = http.send(request);
      } catch (error) {
        const payload = error?.payload;
        if (typeof payload?.tag !== 'string') throw error;
        throw new Unsent(payload.tag, payload.val);
      }
      const withheld = answer.withheld.map(owned);
      const { status, headers: names, body: text } = answer;
      return new Response({ status, headers: Object.fromEntries(names), body: text, withheld });
    },
    credential(name) {
      if (!credentials.has(name)) credentials.set(name, owned(orFailed(() => session.credential(name))));
      return credentials.get(name);
    },
    kept: (key, atLeastSeconds) => owned(session.kept(key, BigInt(atLeastSeconds))),
    keep: (key, secret, validSeconds, unlessValidFor) =>
      owned(orFailed(() => session.keep(key, handleOf(secret), BigInt(validSeconds), BigInt(unlessValidFor)))),
    forget: (key, secret) => session.forget(key, handleOf(secret)),
  });
}
