/** The only reader of process.env; lists every bad key at once. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { StillhouseError } from './contracts/errors.ts';
import { EXECUTION_PROVIDERS, type ExecutionProvider } from './contracts/execution-providers.ts';
import { PRECISIONS, type Precision } from './contracts/precision.ts';

const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback);

const environmentSchema = z.object({
  /** Where campaigns keep their artifacts, ledger and Temporal's database. */
  STILLHOUSE_HOME: z.string().min(1).default('.stillhouse'),
  /** Where downloads are kept, shared by all homes. */
  STILLHOUSE_CACHE: z.string().min(1).default(join(homedir(), '.cache', 'stillhouse')),
  /** A table of prices that takes the place of shipped ones. Default: prices.yaml in the home folder. */
  STILLHOUSE_PRICES: z.string().min(1).optional(),
  STILLHOUSE_API_HOST: z.string().min(1).default('127.0.0.1'),
  STILLHOUSE_API_PORT: port(8420),
  /** Bearer key of the REST API. Absent: `still up` makes one and keeps it in the home folder. */
  STILLHOUSE_API_KEY: z.string().min(16).optional(),
  /** Drives a Stillhouse that runs elsewhere; with it the commands never start one here. */
  STILLHOUSE_API_URL: z.url({ protocol: /^https?$/ }).optional(),
  STILLHOUSE_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
  /** Threads of one model process. Absent: all cores. */
  STILLHOUSE_THREADS: z.coerce.number().int().min(1).max(1024).optional(),
  /** What runs models, the first that can: `cpu`, or `cuda,cpu` on a host with the CUDA libraries of onnxruntime-node. */
  STILLHOUSE_EXECUTION_PROVIDERS: z
    .string()
    .default('cpu')
    .transform((text) => text.split(',').map((name) => name.trim()))
    .pipe(z.array(z.enum(EXECUTION_PROVIDERS)).min(1)),
  /** What models compute the products of their layers in when they answer; how a student is trained is its campaign's own setting. */
  STILLHOUSE_PRECISION: z.enum(PRECISIONS).default('float32'),
  /** A mirror of the Hugging Face hub. */
  HF_ENDPOINT: z.url().default('https://huggingface.co'),
  HF_TOKEN: z.string().min(1).optional(),
  TEMPORAL_ADDRESS: z.string().min(1).default('127.0.0.1:7233'),
  TEMPORAL_NAMESPACE: z.string().min(1).default('default'),
  TEMPORAL_UI_PORT: port(8233),
  /** Where executables are looked for before any is fetched. */
  PATH: z.string().default(''),
});

export interface Config {
  readonly home: string;
  readonly cache: string;
  /** The home's own table of prices, whether it is there or not. */
  readonly prices: string;
  readonly api: { readonly host: string; readonly port: number; readonly key?: string; readonly url?: string };
  readonly logLevel: string;
  readonly threads?: number;
  readonly executionProviders: readonly ExecutionProvider[];
  readonly precision: Precision;
  /** The PATH of this process. */
  readonly path: string;
  readonly hub: { readonly endpoint: string; readonly token?: string };
  readonly temporal: { readonly address: string; readonly namespace: string; readonly uiPort: number };
}

export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const parsed = environmentSchema.safeParse(environment);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}, got ${JSON.stringify(environment[String(issue.path[0])])}`);
    throw new StillhouseError('BAD_INPUT', `environment: ${lines.join('; ')}`);
  }
  const env = parsed.data;
  return {
    home: resolve(env.STILLHOUSE_HOME),
    cache: resolve(env.STILLHOUSE_CACHE),
    prices: resolve(env.STILLHOUSE_PRICES ?? join(env.STILLHOUSE_HOME, 'prices.yaml')),
    api: {
      host: env.STILLHOUSE_API_HOST,
      port: env.STILLHOUSE_API_PORT,
      ...(env.STILLHOUSE_API_KEY === undefined ? {} : { key: env.STILLHOUSE_API_KEY }),
      ...(env.STILLHOUSE_API_URL === undefined ? {} : { url: env.STILLHOUSE_API_URL }),
    },
    logLevel: env.STILLHOUSE_LOG_LEVEL,
    ...(env.STILLHOUSE_THREADS === undefined ? {} : { threads: env.STILLHOUSE_THREADS }),
    executionProviders: env.STILLHOUSE_EXECUTION_PROVIDERS,
    precision: env.STILLHOUSE_PRECISION,
    path: env.PATH,
    hub: { endpoint: env.HF_ENDPOINT, ...(env.HF_TOKEN === undefined ? {} : { token: env.HF_TOKEN }) },
    temporal: { address: env.TEMPORAL_ADDRESS, namespace: env.TEMPORAL_NAMESPACE, uiPort: env.TEMPORAL_UI_PORT },
  };
}

/** The environment of a child process that is to see the same configuration. */
export function environmentOf(config: Config, environment: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return {
    ...environment,
    STILLHOUSE_HOME: config.home,
    STILLHOUSE_CACHE: config.cache,
    STILLHOUSE_PRICES: config.prices,
    STILLHOUSE_LOG_LEVEL: config.logLevel,
    TEMPORAL_ADDRESS: config.temporal.address,
    TEMPORAL_NAMESPACE: config.temporal.namespace,
    STILLHOUSE_EXECUTION_PROVIDERS: config.executionProviders.join(','),
    STILLHOUSE_PRECISION: config.precision,
    ...(config.threads === undefined ? {} : { STILLHOUSE_THREADS: String(config.threads) }),
  };
}

/** The environment of a process that runs models: the native runtime of ONNX would else report to its maker. */
export function modelEnvironment(environment: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return { ...environment, ORT_DISABLE_TELEMETRY: '1' };
}

/** What lies where in the home folder. */
export interface HomePaths {
  readonly artifacts: string;
  readonly ledger: string;
  /** Rate limits of provider keys, shared by all workers. */
  readonly limits: string;
  readonly temporalDatabase: string;
  readonly logs: string;
  readonly reports: string;
  readonly apiKey: string;
  /** Held by the one supervisor of this home. */
  readonly lock: string;
  /** How to reach the stack that runs on this home, and its processes. */
  readonly running: string;
}

export function homePaths(home: string): HomePaths {
  return {
    artifacts: join(home, 'artifacts'),
    ledger: join(home, 'ledger.sqlite'),
    limits: join(home, 'limits.sqlite'),
    temporalDatabase: join(home, 'temporal.sqlite'),
    logs: join(home, 'logs'),
    reports: join(home, 'reports'),
    apiKey: join(home, 'api.key'),
    lock: join(home, 'supervisor.lock'),
    running: join(home, 'running.json'),
  };
}

/** Whether a named secret is set, without reading it. */
export function hasSecret(name: string, environment: NodeJS.ProcessEnv = process.env): boolean {
  return (environment[name] ?? '') !== '';
}

/** The value of a named secret; UNAUTHORIZED with the variable's name when it is not set. Secrets are read where they are used and never kept. */
export function readSecret(name: string, environment: NodeJS.ProcessEnv = process.env): string {
  const value = environment[name];
  if (value === undefined || value === '') {
    throw new StillhouseError('UNAUTHORIZED', `expected an API key in the environment variable ${name}, got none`);
  }
  return value;
}
