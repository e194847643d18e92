// Context providers: they gather the facts that policies judge.

import { answering, pairs } from './checks.js';

/** @typedef {import('./request.js').Request} Request */

/**
 * Makes a context provider; it is the module's default export. What `gather` returns becomes `facts` of the policies'
 * request, as `<provider>.<name>`, and stands in the audit record: never put a secret into a fact. An exception is a
 * failure, which denies unless the configuration says otherwise.
 *
 * @template C
 * @param {{
 *   config: import('./config.js').Type<C>,
 *   validate?: (config: C) => Iterable<{ path: string, message: string }>,
 *   gather: (config: C, request: Request) => Record<string, string>,
 * }} provider
 */
export function context(provider) {
  return made(provider, { asksAServer: false });
}

/**
 * The same for one that may ask a server. Its project has `"world": "http"` in package.json, and its section of the
 * broker's configuration a `connection`.
 *
 * @template C
 * @param {{
 *   config: import('./config.js').Type<C>,
 *   validate?: (config: C) => Iterable<{ path: string, message: string }>,
 *   gather: (http: import('./http.js').Http, config: C, request: Request) => Record<string, string>,
 * }} provider
 */
export function httpContext(provider) {
  return made(provider, { asksAServer: true });
}

function made(provider, more) {
  if (typeof provider.config !== 'function') throw new TypeError('say what its configuration is: config: table({ … })');
  if (typeof provider.gather !== 'function') throw new TypeError('a context provider has a function gather');
  return { validate: () => [], ...provider, ...more };
}

/** What it gathers, as the host takes it. */
export function facts(provider, http, config, request) {
  const gathered = provider.asksAServer ? provider.gather(http, config, request) : provider.gather(config, request);
  return answering('gather', () => pairs('facts', gathered));
}
