/** Where bytes live, in a form small enough for workflow history. */

export const ARTIFACT_KINDS = [
  'spec', // the validated CampaignSpec as canonical JSON
  'rows', // InputRow[] as JSONL: a pool, a development set or a test set
  'requests', // TeacherRequest[] as JSONL
  'dataset', // Sample[] as JSONL: accepted rows, what a student trains on
  'rejected', // RejectedSample[] as JSONL
  'calibration', // Calibration as JSON
  'checkpoint', // training state, see src/training/checkpoint.ts; of a hosted student src/training/hosted/hosted-model.ts
  'loss-curve', // ReportedLoss[] as JSONL, from our own engine LossPoint[]
  'batch', // StoppedBatch as JSON: the rows of a step after which training no longer learned
  'predictions', // Prediction[] as JSONL
  'evaluation', // Evaluation as JSON
  'history', // CampaignHistory as JSON: what the finished rounds left
  'adapter', // FolderManifest of a PEFT adapter folder, or of the folder that says where a hosted student lives
  'model', // FolderManifest of a whole model as a Hugging Face folder
  'report', // one self-contained HTML page
  'manifest', // CampaignManifest as JSON: every hash of a campaign
  'file', // a member of a folder
] as const;
export type ArtifactKind = (typeof ARTIFACT_KINDS)[number];

/** A content address. `sha256` is 64 lower-case hex digits of the stored bytes. */
export interface ArtifactRef {
  readonly kind: ArtifactKind;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** A folder, stored as its members plus this list. Paths are relative, with forward slashes. */
export interface FolderManifest {
  readonly files: readonly { readonly path: string; readonly sha256: string; readonly sizeBytes: number }[];
}
