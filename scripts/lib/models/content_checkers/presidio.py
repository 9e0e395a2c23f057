"""Microsoft's presidio: personal data in texts.

With no `model`, what it knows by patterns and checksums is found (addresses, numbers of cards,
phones and accounts); names of people and places need one of spaCy's models.
"""

import os
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from lib.data.rows import ContentFinding
from lib.errors import UserError
from lib.models.content_checkers.base import Content
from lib.models.content_checkers.settings import ContentCheckerSettings

#: The version that this was written for, which no environment of ours has.
PACKAGE = "presidio-analyzer==2.2.366"


class Presidio:
    """Looks at the texts; a score is presidio's confidence."""

    VERSION: ClassVar[int] = 1

    class Settings(ContentCheckerSettings):
        """Personal data in prompts, instructions and responses."""

        kind: Literal["presidio"] = Field(description="Who looks, and at what.")
        language: str = Field("en", description="Of the texts.")
        entities: list[str] = Field(
            ["EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN"],
            min_length=1,
            description="What counts, by presidio's names.",
        )
        spacy_model: str | None = Field(
            None, description="Of spaCy's, by its name or folder, for names (`PERSON`, `LOCATION`)."
        )

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Sets it up. Errors: UserError where the packages are not installed."""
        try:
            return cls(settings)
        except ImportError as error:
            raise UserError(
                f"pairs.content_check: kind presidio needs a package that is not there ({error})."
                f" Install it where jobs run: pip install {PACKAGE}"
            ) from error

    def __init__(self, settings: Settings) -> None:
        # Else it would fetch a list of domains, from wherever the job runs; it has one of its own.
        os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

        name, language = settings.spacy_model, settings.language
        engine = SpacyNlpEngine(
            models=[{"lang_code": language, "model_name": name or "blank"}],
            ner_model_configuration=NerModelConfiguration(),
        )
        engine.nlp = {language: spacy.load(name) if name else spacy.blank(language)}
        registry = RecognizerRegistry(supported_languages=[language])
        registry.load_predefined_recognizers(languages=[language], nlp_engine=engine)
        self.analyzer: Any = AnalyzerEngine(
            registry=registry, nlp_engine=engine, supported_languages=[language]
        )
        self.settings = settings
        known = self.analyzer.get_supported_entities(language)
        if unknown := sorted(set(settings.entities) - set(known)):
            raise UserError(
                f"pairs.content_check: presidio knows no {', '.join(unknown)} in '{language}', but"
                f" {', '.join(sorted(known))}. Correct `entities`."
            )

    def find(self, content: Content) -> list[ContentFinding]:
        """What counts in each text. The text itself is not repeated: findings are published."""
        settings = self.settings
        return [
            {"of": place, "what": found.entity_type, "score": float(found.score)}
            for place, text in content.texts.items()
            for found in self.analyzer.analyze(
                text=text,
                language=settings.language,
                entities=settings.entities,
                score_threshold=settings.min_score,
            )
        ]
