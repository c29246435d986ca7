/** The openai package set up for one endpoint: its key by name, where the key goes, what else it wants in headers and query. */
import { createHash } from 'node:crypto';
import { OpenAI } from 'openai';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { createRedactor } from './openai-failure.ts';
import type { CallContext } from './openai-failure.ts';
import { tolerantFetch } from './transport.ts';
import { StillhouseError } from '../contracts/errors.ts';

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

/** What is wrong with a secret that cannot stand in a header as it is: mostly what a copy brought along. Never shows any of it. */
function malformation(secret: string): string | undefined {
  if (secret === '') return 'nothing but white space';
  if (/[\r\n]/.test(secret)) return 'a line break inside';
  if (/^["'`].*["'`]$|^[“”„‘’«»]|[“”„‘’«»]$/u.test(secret)) return 'quotation marks around it';
  if (/^bearer\s/i.test(secret)) return 'the word Bearer before it, which is put there by itself';
  if (/[^\x20-\x7e]/.test(secret)) return 'a character that is not ASCII, perhaps an invisible one';
  return /\s/.test(secret) ? 'a space inside' : undefined;
}

/** UNAUTHORIZED for a secret that is malformed: the call is not made, so that it is not sent anywhere. */
function wellFormed(name: string, value: string, isKey: boolean): string {
  const secret = value.trim();
  const problem = malformation(secret);
  // A header beside the key may have spaces: `Basic …`.
  if (problem === undefined || (!isKey && problem === 'a space inside')) return secret;
  throw new StillhouseError('UNAUTHORIZED', `${name}: expected a key of printable ASCII characters without spaces, got one with ${problem}; set it again, as the provider shows it`);
}

/** The package never retries: that, and pacing, is decided by its callers. Secrets are read now and live as long as the client. */
export function openClient(endpoint: EndpointSpec, readSecret: ReadSecret, timeoutMs: number): EndpointClient {
  const provider = baseUrlOf(endpoint);
  const { model, apiKeyEnv, keyHeader, headers = {}, query } = endpoint;
  const key = wellFormed(apiKeyEnv, readSecret(apiKeyEnv), true);
  const secrets = new Set([key]);
  const named = (value: string): string =>
    value.replace(/\$\{([A-Z][A-Z0-9_]*)\}/g, (_match, name: string) => {
      const secret = wellFormed(name, readSecret(name), false);
      secrets.add(secret);
      return secret;
    });
  const defaultHeaders: Record<string, string | null> = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, named(value)]));
  if (keyHeader !== undefined) Object.assign(defaultHeaders, { authorization: null, [keyHeader]: key });
  const client = new OpenAI({
    apiKey: key, baseURL: provider, organization: null, project: null, maxRetries: 0, timeout: timeoutMs, logLevel: 'off', fetch: tolerantFetch, defaultHeaders,
    ...(query === undefined ? {} : { defaultQuery: { ...query } }),
  });
  const redactors = [...secrets].map(createRedactor);
  return {
    client,
    context: { baseUrl: provider, model, keyName: apiKeyEnv, redact: (text) => redactors.reduce((clean, redact) => redact(clean), text) },
    keyId: createHash('sha256').update(`${provider}\n${key}`).digest('hex'),
  };
}
