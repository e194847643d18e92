// Where an exception comes from: in the plugin's own files, not in the SDK's.

import { PluginError, WrongAnswer } from './errors.js';

// The longest text that leaves room for the place within the host's limit.
const MOST_TEXT = 700;
// What the author did not write.
const OTHERS = /(^|\/)(jit-plugin\/|jit_plugin_entry\.js|node:|initializer\.js)/;

/**
 * The calls that led there, the innermost first, as `file:line in function`. An engine writes a call as
 * `function@file:line:column` (SpiderMonkey) or as `at function (file:line:column)` (V8).
 */
export function calls(error) {
  const lines = String(error?.stack ?? '').split('\n', 200);
  return lines.flatMap((line) => {
    const found = line.match(/^(?:\s*at )?(?:async )?([^@(]*?)[@( ]*((?:file:\/\/)?[^@()\s]*?\.m?js):(\d+)(?::\d+)?\)?$/);
    if (!found) return [];
    const [, name, file, number] = found;
    return [{ file, place: `${short(file)}:${number}${name ? ` in ${name.split(/[./<]/).filter(Boolean).pop()}` : ''}` }];
  });
}

function short(file) {
  return file.replace(/^.*\/sources\//, '').replace(/^.*\/(?=[^/]*$)/, '');
}

/** The innermost place in the author's files; of what has none, such as a text that was thrown, the module. */
export function blamed(error, module) {
  if (error instanceof WrongAnswer) return module === undefined ? undefined : `${module}, ${error.function}`;
  const places = calls(error);
  return (places.find(({ file }) => !OTHERS.test(file)) ?? places[0])?.place ?? module;
}

/** The exception with its place: `TypeError: x is undefined (rule.js:12 in decide)`. */
export function inALine(error, module) {
  let words = error instanceof PluginError && error.message !== '' ? error.message : String(error);
  if (words.length > MOST_TEXT) words = `${words.slice(0, MOST_TEXT)}…`;
  const place = blamed(error, module);
  return place === undefined ? words : `${words} (${place})`;
}
