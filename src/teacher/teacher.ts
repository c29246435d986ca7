/** The port behind which every teacher and judge stands: an endpoint or a local model. */
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { BatchService } from './batch-service.ts';

export interface TeacherIdentity {
  /** `local`, or the endpoint's base URL. */
  readonly provider: string;
  /** The model's name; of a local model, with the SHA-256 of its weights, so that another file is another teacher. */
  readonly model: string;
}

export interface AskOptions {
  readonly signal?: AbortSignal;
  /** Whose turn it is where several campaigns wait for one provider key. */
  readonly user?: string;
  /** Have the provider keep each call under this metadata (`store: true`); where it cannot, the call is made without. */
  readonly metadata?: (request: TeacherRequest) => Readonly<Record<string, string>>;
  /**
   * Called with requests that are about to be sent, and awaited: makes the intent durable before the
   * call. Resolves with those that are not to be asked after all, because somebody else has asked or asks
   * them; a group that must be asked together is left out only when all of it is.
   */
  readonly onAsk?: (requests: readonly TeacherRequest[]) => Promise<ReadonlySet<TeacherRequest> | undefined>;
  /** Called with requests that the provider refused without doing them: nothing was bought. */
  readonly onRefused?: (requests: readonly TeacherRequest[]) => Promise<void>;
  /**
   * Called with questions of which all that is not recorded yet may cost more than `upperBound` says, and awaited: as with a
   * second asking, where the first answer is held back. Durable before the attempt.
   */
  readonly onDearer?: (dearer: readonly { readonly request: TeacherRequest; readonly bound: Cost }[]) => Promise<void>;
  /**
   * Called with attempts that the provider may have billed though nothing came of them (a time limit, a broken connection,
   * a body that is no answer), and awaited: the loss is durable before the next attempt.
   */
  readonly onLost?: (lost: readonly { readonly request: TeacherRequest; readonly bound: Cost; readonly reason?: string }[]) => Promise<void>;
  /**
   * Called with questions that came back empty for want of room, of a model of which it was not known that it reasons: the
   * bounds that were set aside do not cover their second asking. What they have cost was told to onLost. Absent: they are
   * asked again whatever it costs.
   */
  readonly onUncovered?: (requests: readonly TeacherRequest[]) => void;
  /** Questions of the same batch that have their answers already: the endpoint has answered such questions. */
  readonly answeredBefore?: number;
  /** Called with groups of answers as they arrive, each group to be made durable before its calls count as done. */
  readonly onAnswers: (answers: readonly { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[]) => Promise<void>;
}

export interface Teacher extends AsyncDisposable {
  readonly identity: TeacherIdentity;
  /**
   * Requests that must be asked together, so that a repeated question gives bitwise the same answer:
   * a local model packs several rows into one run. An endpoint answers one at a time (groups of 1).
   */
  readonly groupSize: number;
  /** Asks all; throws the first permanent failure after the answers that had arrived were handed over. */
  ask(requests: readonly TeacherRequest[], options: AskOptions): Promise<void>;
  /** Throws where no call can be made: a key that is not set, or malformed. Calls nobody. */
  ready?(): void;
  /** The provider's batch service, where it has one. */
  batches?(signal: AbortSignal | undefined): BatchService;
  /** Upper bound of one request's cost and tokens, before it is asked. */
  upperBound(request: TeacherRequest): Cost;
}

/** Finds teachers and judges by their spec. */
export interface TeacherDirectory {
  /** Who would answer, without loading or calling anything: part of every ledger key. */
  identify(endpoint: EndpointSpec): Promise<TeacherIdentity>;
  /** Opens or shares a teacher; a local model stays loaded for a while after its last user closed it. */
  open(endpoint: EndpointSpec): Promise<Teacher>;
}
