// Loaded before the SDKs: they wait for up to half a minute before they try again, and here for a moment.

const wait = globalThis.setTimeout;
globalThis.setTimeout = (callback, milliseconds = 0, ...rest) => wait(callback, Math.min(milliseconds, 10), ...rest);
