/** The openai package set up for one endpoint: its key by name, where the key goes, what else it wants in headers and query. */
import { createHash } from 'node:crypto';
import { OpenAI } from 'openai';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { createRedactor } from './openai-failure.ts';
import type { CallContext } from './openai-failure.ts';

export const OPENAI_BASE_URL = 'https://api.openai.com/v1';

/** The base URL as it stands in ledger keys: without a slash at its end. */
export const baseUrlOf = (endpoint: Pick<EndpointSpec, 'baseUrl'>): string => (endpoint.baseUrl ?? OPENAI_BASE_URL).replace(/\/+$/, '');

/** The value of a named secret; UNAUTHORIZED when it is not set. */
export type ReadSecret = (name: string) => string;

export interface EndpointClient {
  readonly client: OpenAI;
  /** What failures of its calls speak of; takes every secret out of a text. */
  readonly context: CallContext;
  /** Digest of provider and key: names the key without holding it. */
  readonly keyId: string;
}

/** The package never retries: that, and pacing, is decided by its callers. Secrets are read now and live as long as the client. */
export function openClient(endpoint: EndpointSpec, readSecret: ReadSecret, timeoutMs: number): EndpointClient {
  const provider = baseUrlOf(endpoint);
  const { model, apiKeyEnv, keyHeader, headers = {}, query } = endpoint;
  const key = readSecret(apiKeyEnv);
  const secrets = new Set([key]);
  const named = (value: string): string =>
    value.replace(/\$\{([A-Z][A-Z0-9_]*)\}/g, (_match, name: string) => {
      const secret = readSecret(name);
      secrets.add(secret);
      return secret;
    });
  const defaultHeaders: Record<string, string | null> = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, named(value)]));
  if (keyHeader !== undefined) Object.assign(defaultHeaders, { authorization: null, [keyHeader]: key });
  const client = new OpenAI({
    apiKey: key, baseURL: provider, organization: null, project: null, maxRetries: 0, timeout: timeoutMs, logLevel: 'off', defaultHeaders,
    ...(query === undefined ? {} : { defaultQuery: { ...query } }),
  });
  const redactors = [...secrets].map(createRedactor);
  return {
    client,
    context: { baseUrl: provider, model, keyName: apiKeyEnv, redact: (text) => redactors.reduce((clean, redact) => redact(clean), text) },
    keyId: createHash('sha256').update(`${provider}\n${key}`).digest('hex'),
  };
}
