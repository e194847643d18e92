// Secrets that a plugin can place but never read (BLIND-PLUGIN).

let open;

const unreadable = () => {
  // It would put a word where the secret is meant.
  throw new TypeError('a secret has no text: give it as a part, such as ["Bearer ", token]');
};

/** A handle of a secret that the host owns: it is placed into a request, and nothing gives its bytes. */
export class Secret {
  #handle;
  #isOwned;

  constructor(handle, isOwned = false) {
    this.#handle = handle;
    this.#isOwned = isOwned;
    Object.freeze(this);
  }

  toString() {
    return unreadable();
  }

  toJSON() {
    return unreadable();
  }

  [Symbol.toPrimitive]() {
    return unreadable();
  }

  static {
    open = (secret) => ({ handle: secret.#handle, isOwned: secret.#isOwned });
  }
}

/** What stands behind it: for the SDK. */
export const handleOf = (secret) => open(secret).handle;
/** Whether the plugin was given it and may give it back. */
export const isOwned = (secret) => open(secret).isOwned;
