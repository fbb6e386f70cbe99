"""What the operations do; each function is called as its operation in the document."""

from __future__ import annotations

import itertools
import threading
from dataclasses import asdict, dataclass
from typing import Any

from patron import Request, Response
from patron.errors import NotFound
from patron.observe import log

__all__ = ["NewPet", "Pet", "Pets", "createPet", "deletePet", "listPets", "showPet"]


@dataclass(frozen=True, slots=True)
class NewPet:
    """What a client sends; the document has checked it."""

    name: str
    kind: str
    born: int | None = None


@dataclass(frozen=True, slots=True)
class Pet(NewPet):
    """A pet that is for sale."""

    id: int = 0


class Pets:
    """The pets of one worker process, in memory. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _pets and _ids
        self._pets: dict[int, Pet] = {}
        self._ids = itertools.count(1)

    def add(self, pet: NewPet) -> Pet:
        """Keep *pet* under an id of its own."""
        with self._lock:
            kept = Pet(**asdict(pet), id=next(self._ids))
            self._pets[kept.id] = kept
            return kept

    def get(self, pet_id: int) -> Pet:
        """The pet with that id. Raises `NotFound`."""
        try:
            return self._pets[pet_id]
        except KeyError:
            raise NotFound({"error": f"there is no pet {pet_id}"}) from None

    def list(self, limit: int, kinds: list[str] | None) -> list[Pet]:
        """The first *limit* pets, of these *kinds* only."""
        with self._lock:
            found = [pet for pet in self._pets.values() if kinds is None or pet.kind in kinds]
        return found[:limit]

    def remove(self, pet_id: int) -> None:
        """Forget the pet with that id. Raises `NotFound`."""
        with self._lock:
            if self._pets.pop(pet_id, None) is None:
                raise NotFound({"error": f"there is no pet {pet_id}"})


def listPets(request: Request, pets: Pets) -> list[dict[str, Any]]:  # noqa: N802 - the document's name
    """``limit`` is an integer here, with the default that the document gives it."""
    return [_shown(pet) for pet in pets.list(request.fields["limit"], request.fields.get("kind"))]


def createPet(request: Request, pets: Pets) -> Response:  # noqa: N802 - the document's name
    """The body fits the document when this is called."""
    pet = pets.add(request.decode(NewPet))
    log.info("pet arrived", pet=pet.id, kind=pet.kind)
    return Response(_shown(pet), headers={"Location": f"/pets/{pet.id}"})


def showPet(request: Request, pets: Pets) -> dict[str, Any]:  # noqa: N802 - the document's name
    """One pet."""
    return _shown(pets.get(request.params["petId"]))


def deletePet(request: Request, pets: Pets) -> None:  # noqa: N802 - the document's name
    """Only the staff may."""
    pets.remove(request.params["petId"])
    assert request.principal is not None
    log.info("pet left", pet=request.params["petId"], by=request.principal.name)


def _shown(pet: Pet) -> dict[str, Any]:
    return {name: value for name, value in asdict(pet).items() if value is not None}
