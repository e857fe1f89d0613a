import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

const GLOBALS = ['AbortSignal', 'console', 'fetch', 'queueMicrotask', 'setInterval', 'setTimeout', 'clearTimeout', 'URL', 'URLSearchParams'];
const PAGE_GLOBALS = ['crypto', 'document', 'location', 'ResizeObserver'];

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'docs/', 'demo/skywave.js'] },
  eslint.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      eqeqeq: 'error',
      'max-lines': ['error', { max: 450, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/dot-notation': 'off',
      '@typescript-eslint/prefer-literal-enum-member': 'off',
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      'max-lines-per-function': 'off',
      '@typescript-eslint/no-this-alias': 'off',
      // node:test answers promises that nobody has to wait for.
      '@typescript-eslint/no-floating-promises': 'off',
    },
  },
  { files: ['examples/**'], rules: { '@typescript-eslint/explicit-module-boundary-types': 'off' } },
  {
    files: ['**/*.js'],
    ...tseslint.configs.disableTypeChecked,
    languageOptions: {
      ...tseslint.configs.disableTypeChecked.languageOptions,
      globals: Object.fromEntries([...GLOBALS, 'process'].map((name) => [name, 'readonly'])),
    },
  },
  {
    // The demo page, which is linted from the repository's root.
    files: ['demo/*.js'],
    languageOptions: { globals: Object.fromEntries([...GLOBALS, ...PAGE_GLOBALS].map((name) => [name, 'readonly'])) },
    rules: { '@typescript-eslint/explicit-module-boundary-types': 'off' },
  },
);
