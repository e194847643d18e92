// How the host writes a secret where it is placed: as HTTP Basic, in another notation, or as a hash.
//
// The host does it, and the plugin never sees the result. Each function gives a part, which stands wherever a `Secret`
// may stand in a header, a form, a text body, or as a value within a JSON body:
//
//   http.send('GET', ['users'], { headers: { authorization: basic('admin', http.credential('password')) } });
//
//   // `password_hash` as RabbitMQ takes it: base64(salt + sha256(salt + password)).
//   const hash = saltedDigest(password, 'sha256', { salt: 'before', saltBytes: 4, notation: 'base64' });
//   http.send('PUT', ['users', name], { json: { password_hash: hash, tags: '' } });
//
// A password that the host made is random: stretching it (`bcrypt`, `pbkdf2`) protects nothing, so take the lowest cost
// that the backend accepts. A request has at most two of them.

import { text, whole } from './checks.js';
import { Secret, textless } from './secret.js';

const DIGESTS = ['sha1', 'sha256', 'sha384', 'sha512'];
const NOTATIONS = ['hex', 'base64', 'base64url'];

/** A secret, and how the host writes it. */
export class Encoded extends textless('an encoded secret has no text: give it as a part') {
  constructor(secret, how, settings) {
    super();
    if (!(secret instanceof Secret)) throw new TypeError('what is encoded is a Secret');
    this.secret = secret;
    this.how = how;
    this.settings = Object.freeze(settings);
    Object.freeze(this);
  }
}

/** Parts that are one text within a JSON body. */
export class Joined {
  constructor(parts) {
    this.parts = parts;
    Object.freeze(this);
  }
}

function one(name, value, of) {
  if (!of.includes(value)) throw new TypeError(`${name} is ${JSON.stringify(value)}: it is one of ${of.join(', ')}`);
  return value;
}

function between(name, value, least, most) {
  if (whole(name, value) < least || value > most) throw new TypeError(`${name} is ${least} to ${most}`);
  return value;
}

/**
 * User and secret as the credentials of HTTP Basic (RFC 7617): `Basic ` and base64. It is the whole value of the header
 * `authorization`. The user has no colon.
 */
export function basic(user, secret) {
  if (text('user', user).includes(':')) throw new TypeError('the user of HTTP Basic has no colon');
  return new Encoded(secret, 'basic', { user });
}

/** The secret's own bytes (UTF-8) as `hex`, `base64` or `base64url`. It can be read back. */
export const written = (secret, notation) =>
  new Encoded(secret, 'written', { notation: one('notation', notation, NOTATIONS) });

/** Its digest (`sha1`, `sha256`, `sha384`, `sha512`) without a salt. */
export const digest = (secret, name, { notation }) =>
  new Encoded(secret, 'digest', { digest: one('digest', name, DIGESTS), notation: one('notation', notation, NOTATIONS) });

/**
 * Its digest with random salt, both written together. `salt` is `before` (`salt + digest(salt + secret)`, as RabbitMQ
 * stores it) or `after` (`digest(secret + salt) + salt`, as directories store `{SSHA256}`); 4 to 64 bytes of it.
 */
export const saltedDigest = (secret, name, { salt, saltBytes, notation }) =>
  new Encoded(secret, 'salted-digest', {
    digest: one('digest', name, DIGESTS),
    salt: one('salt', salt, ['before', 'after']),
    saltBytes: between('saltBytes', saltBytes, 4, 64),
    notation: one('notation', notation, NOTATIONS),
  });

/** Its bcrypt hash, with `$2a$`, `$2b$` or `$2y$` before it; 2 to the power of `cost` rounds, 4 to 12. */
export const bcrypt = (secret, { cost, prefix = '2b' }) =>
  new Encoded(secret, 'bcrypt', {
    prefix: one('prefix', prefix, ['2a', '2b', '2y']),
    cost: between('cost', cost, 4, 12),
  });

/**
 * A key derived from it (PBKDF2 with HMAC), as `$pbkdf2-sha256$i=600000,l=32$salt$key`. Not with `sha1`; 1 to 1000000
 * iterations.
 */
export const pbkdf2 = (secret, name, { iterations }) =>
  new Encoded(secret, 'pbkdf2', {
    digest: one('digest', name, DIGESTS.slice(1)),
    iterations: between('iterations', iterations, 1, 1_000_000),
  });

/** Parts that stand one after the other in one text of a JSON body, such as `{SSHA256}` and a digest. */
export function joined(...parts) {
  parts.forEach((part, index) => {
    if (!(part instanceof Secret || part instanceof Encoded)) text(`parts[${index}]`, part);
  });
  return new Joined(Object.freeze(parts));
}
