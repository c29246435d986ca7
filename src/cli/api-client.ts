/** The REST API as the commands use it. Answers are trusted: the service is the same release. */
import type { CheckedSpec } from '../contracts/activities.ts';
import type { FolderManifest } from '../contracts/artifacts.ts';
import type { CampaignDescription, CampaignListing } from '../client/campaigns.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { ErrorCode } from '../contracts/errors.ts';
import type { Estimate, LeftOut } from '../estimate/estimate.ts';
import type { Budget, CampaignState, RoundSummary } from '../contracts/state.ts';

export type CampaignResource = CampaignDescription & { readonly rounds: readonly RoundSummary[] };

export type EstimateAnswer = Estimate & { readonly warnings: readonly string[] };

/** What the check of a spec found. */
export type CheckAnswer = Omit<CheckedSpec, 'excluded'> & { readonly leftOut: readonly LeftOut[]; readonly warnings: readonly string[] };

export interface ApiAddress {
  readonly url: string;
  readonly key: string;
}

const REQUEST_TIMEOUT_MS = 60_000;
/** Models are slow, and data may have to be fetched first. */
const CHECK_TIMEOUT_MS = 1_200_000;

export class ApiClient {
  readonly #address: ApiAddress;

  constructor(address: ApiAddress) {
    this.#address = address;
  }

  async #send(method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown, timeoutMs = REQUEST_TIMEOUT_MS): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(new URL(path, this.#address.url), {
        method,
        headers: { authorization: `Bearer ${this.#address.key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        signal: AbortSignal.timeout(timeoutMs),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (cause) {
      const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
      throw new StillhouseError('UNAVAILABLE', `expected the REST API to answer at ${this.#address.url}, got ${reason}`, { cause });
    }
    if (response.ok) return response;
    const text = await response.text();
    throw toError(response.status, text);
  }

  async #json<T>(method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown, timeoutMs?: number): Promise<T> {
    return (await (await this.#send(method, path, body, timeoutMs)).json()) as T;
  }

  /** `created` is false when a campaign with this very spec exists already. */
  async start(spec: unknown): Promise<{ readonly created: boolean; readonly campaign: CampaignResource }> {
    const response = await this.#send('POST', '/v1/campaigns', spec);
    return { created: response.status === 201, campaign: (await response.json()) as CampaignResource };
  }
  estimate(spec: unknown): Promise<EstimateAnswer> {
    return this.#json('POST', '/v1/campaigns/estimate', spec);
  }
  /** As long as the first answers take. */
  check(spec: unknown): Promise<CheckAnswer> {
    return this.#json('POST', '/v1/campaigns/check', spec, CHECK_TIMEOUT_MS);
  }
  async list(): Promise<readonly CampaignListing[]> {
    return (await this.#json<{ campaigns: CampaignListing[] }>('GET', '/v1/campaigns')).campaigns;
  }
  get(name: string): Promise<CampaignResource> {
    return this.#json('GET', pathOf(name));
  }
  pause(name: string, pause: { readonly reason?: string; readonly by?: string }): Promise<CampaignState> {
    return this.#json('POST', `${pathOf(name)}/pause`, pause);
  }
  resume(name: string): Promise<CampaignState> {
    return this.#json('POST', `${pathOf(name)}/resume`, {});
  }
  cancel(name: string, reason?: string): Promise<CampaignState> {
    return this.#json('POST', `${pathOf(name)}/cancel`, reason === undefined ? {} : { reason });
  }
  raiseBudget(name: string, budget: Budget): Promise<CampaignState> {
    return this.#json('POST', `${pathOf(name)}/budget`, budget);
  }
  setTeacher(name: string, patch: Readonly<Record<string, unknown>>): Promise<CampaignState> {
    return this.#json('PATCH', `${pathOf(name)}/teacher`, patch);
  }
  setSpec(name: string, patch: Readonly<Record<string, unknown>>): Promise<CampaignState & { readonly notes: readonly string[] }> {
    return this.#json('PATCH', `${pathOf(name)}/spec`, patch);
  }
  /** `created` is false when a campaign of that name with the same spec exists already. */
  async fork(parent: string, body: { readonly name: string; readonly fromRound: number; readonly spec?: unknown }): Promise<{ readonly created: boolean; readonly campaign: CampaignResource }> {
    const response = await this.#send('POST', `${pathOf(parent)}/fork`, body);
    return { created: response.status === 201, campaign: (await response.json()) as CampaignResource };
  }
  async report(name: string): Promise<string> {
    return (await this.#send('GET', `${pathOf(name)}/report`)).text();
  }
  adapter(name: string): Promise<FolderManifest> {
    return this.#json('GET', `${pathOf(name)}/artifacts/adapter`);
  }
  /** A member of the student's folder, as it arrives. */
  async adapterFile(name: string, path: string): Promise<AsyncIterable<Uint8Array>> {
    const { body } = await this.#send('GET', `${pathOf(name)}/artifacts/adapter?path=${encodeURIComponent(path)}`);
    return (body ?? []) as AsyncIterable<Uint8Array>;
  }
}

const pathOf = (name: string): string => `/v1/campaigns/${encodeURIComponent(name)}`;

function toError(status: number, text: string): StillhouseError {
  try {
    const { error } = JSON.parse(text) as { readonly error: { readonly code: ErrorCode; readonly message: string; readonly details: Record<string, unknown> } };
    return new StillhouseError(error.code, error.message, { details: error.details });
  } catch {
    return new StillhouseError('UNAVAILABLE', `expected an answer of the REST API, got HTTP ${status} from something else`);
  }
}
