import { isNode } from "./node.ts";
/** Workers that run tasks of the pool in threads-wasm.cpp, in Node and in browsers. */
export interface Workers {
  /** How many started. */
  readonly count: number;
  /** Ends them; stop() of the module comes first, which wakes them. */
  close(): void;
}

interface Task {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Index of the thread, 1 … count; 0 is the caller. */
  readonly index: number;
  /** Where its stack begins: the highest address, as stacks grow down. */
  readonly stackTop: number;
  readonly threadLocals: number;
}

interface Running {
  readonly terminate: () => void;
}

const STACK_BYTES = 1 << 20;
/** Thread-local variables of the C++ are a few bytes; the module says how many, up to this. */
const THREAD_LOCAL_BYTES = 1024;
/** A worker that takes longer than this to start will not. */
const START_MILLISECONDS = 20_000;

/**
 * The whole life of a worker, as text: it works wherever this file ends up,
 * in a bundle too. `post` tells the starter that it is about to wait for
 * tasks; worker() returns when the backend is disposed. A trap in a task is
 * told to the caller, which waits for that task, through fail().
 */
const LIFE = `
  async function live({ module, memory, index, stackTop, threadLocals }, post) {
    let exports;
    try {
      exports = (await WebAssembly.instantiate(module, { env: { memory } })).exports;
      exports.__stack_pointer.value = stackTop | 0;
      exports.__wasm_init_tls(threadLocals | 0);
      post("ready");
      exports.worker(index);
    } catch (error) {
      exports?.fail();
      post(String(error));
    }
  }
`;

const NODE_LIFE = `${LIFE}
  const { parentPort, workerData } = require("node:worker_threads");
  live(workerData, (message) => parentPort.postMessage(message));
`;

const BROWSER_LIFE = `${LIFE}
  onmessage = ({ data }) => live(data, (message) => postMessage(message)).then(() => close());
`;

/**
 * Starts workers, each with a stack of its own from `allocate`. Fewer than wanted is said through `warn`; none is an
 * error. They do not keep a Node process alive.
 */
export async function startWorkers(
  wanted: number,
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  allocate: (bytes: number) => number,
  warn: (message: string) => void,
): Promise<Workers> {
  const running: Running[] = [];
  let failure: unknown;
  for (let index = 1; index <= wanted; index++) {
    const stack = allocate(STACK_BYTES);
    const task = {
      module,
      memory,
      index,
      stackTop: stack + STACK_BYTES,
      threadLocals: allocate(THREAD_LOCAL_BYTES),
    };
    try {
      running.push(await (isNode() ? startInNode(task) : startInBrowser(task)));
    } catch (error) {
      failure = error;
      break;
    }
  }
  if (running.length === 0) throw failure;
  if (failure !== undefined) {
    warn(`wasm: ${1 + running.length} threads are used, as no more could be started (${failure})`);
  }
  return {
    count: running.length,
    close: () => {
      for (const worker of running) worker.terminate();
    },
  };
}

async function startInNode(task: Task): Promise<Running> {
  const { Worker } = process.getBuiltinModule("node:worker_threads");
  const worker = new Worker(NODE_LIFE, { eval: true, workerData: task, execArgv: [] });
  await ready(
    (listen) => {
      worker.once("message", listen);
      worker.once("error", (error) => listen(String(error)));
    },
    () => worker.terminate(),
  );
  worker.unref();
  return { terminate: () => void worker.terminate() };
}

async function startInBrowser(task: Task): Promise<Running> {
  const url = URL.createObjectURL(new Blob([BROWSER_LIFE], { type: "text/javascript" }));
  const worker = new Worker(url);
  await ready(
    (listen) => {
      worker.onmessage = ({ data }) => listen(data);
      worker.onerror = (event) => listen(event.message || "worker could not be loaded");
      worker.postMessage(task);
    },
    () => worker.terminate(),
  );
  URL.revokeObjectURL(url);
  return worker;
}

/** Resolves on the message "ready"; any other message, or none in time, is why there is no worker. */
async function ready(
  listenTo: (listen: (message: string) => void) => void,
  abandon: () => void,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer from a worker")), START_MILLISECONDS);
      listenTo((message) => (message === "ready" ? resolve() : reject(new Error(message))));
    });
  } catch (error) {
    abandon();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
