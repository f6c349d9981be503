"""The classes of transformers whose cache is known to be right."""

KNOWN_ARCHITECTURES = frozenset(
    """
    AXK1ForCausalLM AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM AriaTextForCausalLM
    BeamForCausalLM BertGenerationDecoder BertLMHeadModel BigBirdForCausalLM BioGptForCausalLM
    BitNetForCausalLM BloomForCausalLM CTRLLMHeadModel CodeGenForCausalLM Cohere2ForCausalLM
    Cohere2MoeForCausalLM CohereCompassForCausalLM CohereForCausalLM CwmForCausalLM DbrxForCausalLM
    DeepseekV2ForCausalLM DeepseekV3ForCausalLM DiffLlamaForCausalLM DogeForCausalLM Dots1ForCausalLM
    ElectraForCausalLM Emu3ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM ErnieForCausalLM
    Exaone4ForCausalLM ExaoneMoeForCausalLM FalconForCausalLM FlexOlmoForCausalLM FlintForCausalLM
    FuyuForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM GPTNeoForCausalLM
    GPTNeoXForCausalLM GPTNeoXJapaneseForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
    Gemma3ForConditionalGeneration Gemma3nForCausalLM Gemma4ForCausalLM Gemma4ForConditionalGeneration
    Gemma4UnifiedForCausalLM Gemma4UnifiedForConditionalGeneration GemmaForCausalLM Glm4ForCausalLM
    Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GlmForCausalLM GotOcr2ForConditionalGeneration
    GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeSWAForCausalLM
    GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HYV3ForCausalLM HeliumForCausalLM HrmTextForCausalLM
    HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM HyperCLOVAXForCausalLM Jais2ForCausalLM
    JetMoeForCausalLM Kolibri1ForCausalLM LagunaForCausalLM LlamaForCausalLM LongcatFlashForCausalLM
    MegatronBertForCausalLM MellumForCausalLM MiMoV2FlashForCausalLM MiniCPM3ForCausalLM
    MiniMaxM2ForCausalLM MiniMaxM3VLForCausalLM Ministral3ForCausalLM MinistralForCausalLM
    MistralForCausalLM MixtralForCausalLM MllamaForCausalLM ModernBertDecoderForCausalLM MoshiForCausalLM
    MossTranscribeDiarizeForConditionalGeneration MptForCausalLM NanoChatForCausalLM NemotronForCausalLM
    OPTForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM OlmoeForCausalLM PersimmonForCausalLM
    Phi3ForCausalLM Phi4MultimodalForCausalLM PhiForCausalLM PhimoeForCausalLM Qwen2ForCausalLM
    Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM RemBertForCausalLM RoCBertForCausalLM
    SeedOssForCausalLM SmolLM3ForCausalLM SolarOpenForCausalLM StableLmForCausalLM Starcoder2ForCausalLM
    VaultGemmaForCausalLM WhisperForCausalLM XGLMForCausalLM YoutuForCausalLM
    """.split()  # noqa: SIM905 - as a list they would be 116 lines
)
"""Causal classes that cache keys and values per position, and whose rows of different lengths share passes.

They are those of ``docs/architectures.md`` with these properties: their texts are equal to those of an
uncached reference, alone and in batches.
"""
