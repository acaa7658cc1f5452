// What --node-assist makes a Node worker load before its program: see docs/node-assist.md. The
// comments are left out, and the lines joined with spaces, for a data: URL in NODE_OPTIONS.
import { isMainThread } from 'node:worker_threads';

// Processes that the program starts must not load this too.
const rest = process.env.NODE_OPTIONS?.replace(/ ?--import data:text\/javascript;by=roundel,\S*/, '');
if (rest) process.env.NODE_OPTIONS = rest;
else delete process.env.NODE_OPTIONS;

if (isMainThread && process.channel) {
  const { default: cluster } = await import('node:cluster');
  if (cluster.isWorker) await assist(cluster.worker);
}

async function assist(worker) {
  const { default: http } = await import('node:http');
  // Not there in a Node without OpenSSL.
  const { default: https } = await import('node:https').catch(() => ({}));
  const { default: diagnostics } = await import('node:diagnostics_channel');
  const { performance } = await import('node:perf_hooks');

  // The worker was told to leave, by a message or a signal; or it leaves by itself.
  let told = false;
  const leaves = () => told || worker.exitedAfterDisconnect === true;

  const { emit } = process;
  process.emit = function (name, message) {
    const isOurs = message?.cmd === 'NODE_CLUSTER' && message.act === 'disconnect';
    told ||= name === 'SIGTERM' || name === 'SIGINT' || (name === 'internalMessage' && isOurs);
    told ||= name === 'message' && message === 'shutdown';
    return Reflect.apply(emit, this, arguments);
  };

  // When a server closes, Node closes its idle connections, on which a request may be on its way.
  // They stay: each closes with its next answer, or when it times out. So it is for any reason to
  // close a server, and for the server alone; another one of the program may serve on.
  const closed = new WeakSet();
  const ends = (server) => leaves() || (closed.has(server) && !server.listening);
  let isClosing = false;
  for (const { Server } of [http, https].filter(Boolean)) {
    const { close } = Server.prototype;
    Server.prototype.close = function () {
      closed.add(this);
      isClosing = true;
      try {
        return Reflect.apply(close, this, arguments);
      } finally {
        isClosing = false;
      }
    };
    // Some programs call this just before close(), for versions of Node whose close() does not.
    const { closeIdleConnections } = Server.prototype;
    Server.prototype.closeIdleConnections = function () {
      const act = () => Reflect.apply(closeIdleConnections, this, []);
      if (isClosing || (this.listening && leaves())) return;
      if (!this.listening) return act();
      process.nextTick(() => this.listening && act());
    };
  }

  // Answers say that the connection closes. What a program writes itself is changed too.
  const { prototype } = http.ServerResponse;
  const wanted = Symbol('shouldKeepAlive');
  Object.defineProperty(prototype, 'shouldKeepAlive', {
    configurable: true,
    get() { return this[wanted] && !ends(serverOf(this)); },
    set(value) { this[wanted] = value; },
  });
  const serverOf = (response) => response.req?.socket?.server;
  const isKept = (value) => /^\s*keep-alive\s*$/i.test(value);
  const { _storeHeader } = prototype;
  prototype._storeHeader = function (first, headers) {
    if (ends(serverOf(this))) {
      if (isKept(this.getHeader('connection'))) this.setHeader('connection', 'close');
      headers = closing(headers);
    }
    return Reflect.apply(_storeHeader, this, [first, headers]);
  };
  // The same headers with `Connection: close`, in any of the forms that writeHead() takes.
  function closing(headers) {
    const names = (name) => String(name).toLowerCase() === 'connection';
    if (!Array.isArray(headers)) {
      const name = Object.keys(headers ?? {}).find((it) => names(it) && isKept(headers[it]));
      return name === undefined ? headers : { ...headers, [name]: 'close' };
    }
    const copy = [...headers];
    copy.forEach((header, at) => {
      if (Array.isArray(header)) {
        if (names(header[0]) && isKept(header[1])) copy[at] = [header[0], 'close'];
      } else if (at % 2 === 1 && names(copy[at - 1]) && isKept(header)) {
        copy[at] = 'close';
      }
    });
    return copy;
  }

  // Tells the primary what it can not see.
  const { send } = process;
  const tell = (act, data) => {
    if (!process.connected) return;
    Reflect.apply(send, process, [{ cmd: 'NODE_CLUSTER', act, data }, undefined, {}, () => {}]);
  };

  // Within 50 ms of a change: how many connections are open.
  let open = 0;
  let later;
  const changed = () => {
    later ??= setTimeout(() => {
      later = undefined;
      tell('load', open);
    }, 50).unref();
  };
  diagnostics.subscribe('net.server.socket', ({ socket }) => {
    open += 1;
    changed();
    socket.once('close', () => {
      open -= 1;
      changed();
    });
  });

  // Each second: how late the timer is, in steps of 10 ms.
  const EVERY = 1000;
  let lag = null;
  let due = performance.now() + EVERY;
  setInterval(() => {
    const now = performance.now();
    const late = Math.floor(Math.max(0, now - due) / 10) * 10;
    due = now + EVERY;
    if (late !== lag) tell('lag', lag = late);
  }, EVERY).unref();

  // The signal that the program handles: it wants to be told to leave by that.
  let signal = null;
  const look = () => {
    const handled = ['SIGTERM', 'SIGINT'].find(isHandled) ?? null;
    if (handled !== signal) tell('stopSignal', signal = handled);
  };
  for (const event of ['newListener', 'removeListener']) {
    process.on(event, (name) => {
      if (name === 'SIGTERM' || name === 'SIGINT') setImmediate(look);
    });
  }
}

// Listeners of the package signal-exit handle nothing: they end the process at once.
function isHandled(signal) {
  const emitters = [process.__signal_exit_emitter__, globalThis[Symbol.for('signal-exit emitter')]];
  const others = emitters.reduce((sum, emitter) => sum + (emitter?.count ?? 0), 0);
  return process.listenerCount(signal) > others;
}
