// The host's log. Each line carries the plugin's name; the host bounds how many there are.

const MOST_RECORDS = 1000;

/** Of native tests, which have no host: `{ level, message, fields }`. */
export const records = [];

// component.js, which alone can import the host's function, replaces it.
let sink = (level, message, fields) => {
  if (records.length < MOST_RECORDS) records.push({ level, message, fields });
};

/** @param {(level: string, message: string, fields: Record<string, string>) => void} write */
export function sendTo(write) {
  sink = write;
}

const at = (level) => (message, fields = {}) =>
  sink(level, String(message), Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, String(value)])));

export const log = { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') };
