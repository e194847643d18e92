// The request that a policy is asked about. Each field is fetched from the host when it is first read. The host
// notes what was read: it stands in the audit record, so read what the decision depends on and no more.

const SCOPES = ['workload', 'workload_target', 'target'];

/** The counts are not there, or are no numbers. Left alone, it denies. */
export class Uncounted extends Error {}

/**
 * Names and values as an object: `pairs.env` and `'env' in pairs` read one name; whatever needs all names
 * (`Object.keys`, `{ ...pairs }`) reads the whole.
 *
 * @param {(name: string) => string | undefined} one
 * @param {() => [string, string][]} fetch
 * @returns {Record<string, string | undefined>}
 */
function lazily(one, fetch) {
  const known = new Map();
  let whole;
  const all = () => (whole ??= new Map(fetch()));
  const find = (name) => {
    if (typeof name !== 'string') return undefined;
    if (whole) return whole.get(name);
    if (!known.has(name)) known.set(name, one(name));
    return known.get(name);
  };
  const refuse = () => {
    throw new TypeError('a request cannot be changed');
  };
  return new Proxy(Object.create(null), {
    get: (_, name) => find(name),
    has: (_, name) => find(name) !== undefined,
    ownKeys: () => [...all().keys()],
    getOwnPropertyDescriptor(_, name) {
      const value = find(name);
      return value === undefined ? undefined : { value, enumerable: true, configurable: true, writable: false };
    },
    set: refuse,
    defineProperty: refuse,
    deleteProperty: refuse,
  });
}

/** What the host counted, the request itself included. A scope is `workload`, `workload_target` or `target`. */
class Usage {
  #facts;

  constructor(facts) {
    this.#facts = facts;
  }

  /** The requests in the last `window` seconds, which must be among the policy's `windows`. */
  requests(scope, window) {
    return this.#count(scope, `requests.${window}`);
  }

  /** The live leases. */
  leases(scope) {
    return this.#count(scope, 'leases');
  }

  #count(scope, what) {
    if (!SCOPES.includes(scope)) throw new TypeError(`there is no scope ${scope}: write one of ${SCOPES.join(', ')}`);
    const fact = `usage.${scope}.${what}`;
    const text = this.#facts[fact];
    if (text === undefined) throw new Uncounted(`the host gave no count ${fact}`);
    if (!/^[0-9]+$/.test(text)) throw new Uncounted(`the host's count ${fact} is no number`);
    return Number(text);
  }
}

/** What is asked, by whom, and what is known. The contract is `wit/request.wit`. */
export class Request {
  #source;
  #read = new Map();

  /** @param {object} source The host's request, or what a test made in its place. */
  constructor(source) {
    this.#source = source;
    /** Attributes of the identity, by configuration (`k8s_namespace`, `env`, …). */
    this.attributes = lazily((name) => source.attribute(name), () => source.attributes());
    /** The caller's own words: claims of the caller, not of its identity. */
    this.metadata = lazily((name) => source.metadata(name), () => source.allMetadata());
    /** Usage counts of the host and facts of context providers, by name. */
    this.facts = lazily((name) => source.fact(name), () => source.facts());
    /** What the operation is about: `lease` of a renewal. */
    this.resource = lazily((name) => source.resource(name), () => source.wholeResource());
    Object.freeze(this);
  }

  #get(name) {
    if (!this.#read.has(name)) this.#read.set(name, this.#source[name]());
    return this.#read.get(name);
  }

  /** `issue`, `renew`, or what the policy's `operations` add. @returns {string} */
  get operation() {
    return this.#get('operation');
  }

  /** Seconds since the Unix epoch, UTC. A policy has no clock: this is the time. @returns {number} */
  get time() {
    return Number(this.#get('time'));
  }

  /** The verified workload. @returns {string} */
  get workload() {
    return this.#get('workload');
  }

  /** The configured name of the issuer that vouches for it. @returns {string} */
  get issuer() {
    return this.#get('issuer');
  }

  /** The target's name. @returns {string} */
  get target() {
    return this.#get('target');
  }

  /** The role that is asked for. @returns {string} */
  get role() {
    return this.#get('role');
  }

  /** How long the lease shall live. @returns {number} */
  get ttlSeconds() {
    return Number(this.#get('ttlSeconds'));
  }

  /** The caller's reason. @returns {string | undefined} */
  get reason() {
    return this.#get('reason');
  }

  /** The caller's ticket. @returns {string | undefined} */
  get ticket() {
    return this.#get('ticket');
  }

  /** The caller's IP address as the broker's listener sees it; behind a proxy, the proxy's. @returns {string | undefined} */
  get callerAddress() {
    return this.#get('callerAddress');
  }

  /** What the host counted, for a policy with `windows`. */
  get usage() {
    return new Usage(this.facts);
  }
}
