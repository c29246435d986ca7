/** Back ends of the native runtime that a model may run on. `cuda` needs the libraries that onnxruntime-node's install script fetches, and a driver. */
export const EXECUTION_PROVIDERS = ['cpu', 'cuda'] as const;
export type ExecutionProvider = (typeof EXECUTION_PROVIDERS)[number];
