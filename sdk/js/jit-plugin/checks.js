// What a plugin gives to the host has the types of the contract, or its author reads which one has not.
//
// Without these checks a wrong type would be a trap without a word.

import { WrongAnswer } from './errors.js';

/** What a value is, in a word. */
export function called(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'a list';
  if (typeof value.then === 'function') return 'a promise';
  return { string: 'a text', number: 'a number', bigint: 'a number', boolean: 'true or false', function: 'a function' }[
    typeof value
  ] ?? 'an object';
}

/** A text. */
export function text(name, value) {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a text, not ${called(value)}`);
  // Half a surrogate pair is no text of the contract.
  return value.isWellFormed?.() === false ? value.toWellFormed() : value;
}

export const optionalText = (name, value) => (value === undefined || value === null ? undefined : text(name, value));

/** A list of texts. */
export function texts(name, value) {
  if (!Array.isArray(value)) throw new TypeError(`${name} must be a list of texts, not ${called(value)}`);
  return value.map((item, index) => text(`${name}[${index}]`, item));
}

/** An object whose values are texts, as pairs. */
export function pairs(name, value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || typeof value.then === 'function') {
    throw new TypeError(`${name} must be an object of texts, not ${called(value)}`);
  }
  return Object.entries(value).map(([key, item]) => [key, text(`${name}.${key}`, item)]);
}

/** A whole number in that range. */
export function whole(name, value, least = 0, most = Number.MAX_SAFE_INTEGER) {
  if (!Number.isSafeInteger(value)) throw new TypeError(`${name} must be a whole number, not ${called(value)}`);
  if (value < least || value > most) throw new TypeError(`${name} is ${value}, and it can be ${least} to ${most}`);
  return value;
}

export const optionalWhole = (name, value) => (value === undefined || value === null ? undefined : whole(name, value));

/** The value of a function that reads a plugin's answer; what is wrong with it is told with the function's name. */
export function answering(name, read) {
  try {
    return read();
  } catch (error) {
    if (error instanceof WrongAnswer || !(error instanceof TypeError)) throw error;
    throw new WrongAnswer(name, `returned what it must not: ${error.message}`);
  }
}

/** An answer that has only these keys. */
export function table(name, value, keys) {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || typeof value.then === 'function') {
    throw new TypeError(`${name} must be an object, not ${called(value)}`);
  }
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw new TypeError(`${name} has no ${unknown}: there are ${keys.join(', ')}`);
  return value;
}

/** What `validate` told: a list of problems, or a generator that yields them. */
export function problemList(name, told) {
  if (told === null || told === undefined || typeof told === 'string' || typeof told[Symbol.iterator] !== 'function') {
    throw new WrongAnswer(name, `must return a list of problems or yield them, not ${called(told)}`);
  }
  const found = [...told];
  return answering(name, () =>
    found.map((problem) => ({ path: text('path', problem?.path), message: text('message', problem?.message) })),
  );
}
