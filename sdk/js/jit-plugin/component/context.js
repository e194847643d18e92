// The context provider as the contract's exports.

import { facts } from '../context.js';
import { Request } from '../request.js';
import { begin, configured, fails, tell } from './common.js';

/**
 * @param {ReturnType<typeof import('../context.js').context>} provider
 * @param {import('../http.js').Http} [http] The host's, for one that asks a server.
 */
export function exported(provider, host, project, http) {
  begin(host, project);
  if (typeof provider?.gather !== 'function') {
    throw new TypeError('the module exports no context provider: export default context({ … })');
  }
  if (provider.asksAServer !== (http !== undefined)) {
    const [maker, hint] = provider.asksAServer ? ['httpContext', 'add'] : ['context', 'remove'];
    throw new TypeError(`the provider is made by ${maker}: ${hint} "world": "http" in "jitPlugin" of package.json`);
  }
  const { config, validate, prepare } = configured(provider);
  const context = {
    validate,
    prepare,
    gather(request) {
      try {
        return facts(provider, http, config(), new Request(request));
      } catch (error) {
        throw fails(tell(error));
      }
    },
  };
  return { context };
}
