import type { Part } from "../tensor/weight.ts";
import type { Environment, Fingerprint, Header, Record } from "./record.ts";
import { lowbitVersion } from "./version.ts";

/** What ran the kernels, as far as a record is concerned; any Backend fits. */
export interface RanOn {
  readonly name: string;
  readonly threads: number;
}

/** What a piece of work read, for its record. */
export interface Inputs {
  readonly models?: readonly Fingerprint[];
  readonly data?: readonly Fingerprint[];
  readonly seed?: number;
}

/**
 * Notes when a piece of work starts; the function returned puts its record
 * together when it is done. `options` are those given with defaults filled in;
 * paths in them go through `baseName` first.
 */
export function startRecord(verb: string, options: unknown) {
  const started = new Date().toISOString();
  const from = performance.now();
  return <Result extends object>(
    ranOn: RanOn | undefined,
    inputs: Inputs,
    result: Result,
  ): Record<Result> => {
    const header: Header = {
      record: "lowbit",
      version: 1,
      verb,
      options,
      ...(inputs.seed === undefined ? {} : { seed: inputs.seed }),
      models: inputs.models ?? [],
      data: inputs.data ?? [],
      environment: environment(ranOn),
      started,
      seconds: (performance.now() - from) / 1000,
    };
    return { ...header, ...result };
  };
}

/** Versions and machine, as they are now. */
export function environment(ranOn?: RanOn): Environment {
  const node = typeof process === "object" ? process : undefined;
  return {
    lowbit: lowbitVersion,
    runtime: node?.version ? `node ${node.version}` : navigator.userAgent,
    platform: node?.platform ? `${node.platform} ${node.arch}` : "browser",
    backend: ranOn?.name ?? "none",
    threads: ranOn?.threads ?? 1,
  };
}

/** Names bytes by their content: SHA-256, in hexadecimal. */
export async function fingerprint(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<Fingerprint> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { name, bytes: bytes.byteLength, sha256 };
}

/** The same for parts of the same content alone: two weights may hold one of them. */
export async function partKey({ dtype, shape, bytes }: Part): Promise<string> {
  const { sha256 } = await fingerprint("part", bytes as Uint8Array<ArrayBuffer>);
  return `${dtype} ${shape.join()} ${sha256}`;
}

/** Last component of a path, as records hold no paths of the machine they were made on; `hf:` and `bundled:` names stay whole. */
export function baseName(path: string): string {
  return /^(hf|bundled):/.test(path) ? path : path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}
