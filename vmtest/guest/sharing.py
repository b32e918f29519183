"""Objects that work together: loaded so that they share their maps."""

from collections.abc import Iterable

from vmtest.guest.objects import BpfObject


def load_sharing(objects: Iterable[BpfObject]) -> None:
    """Loads objects that are open, one after the other.

    Maps are shared by name: the first object that has a map makes it, and all later ones take that
    one instead of making their own. Global variables are not shared: a switch that several objects
    have is to be set in each. Raises LibbpfError if a map differs from its namesake, LoadError.
    """
    owners: dict[str, BpfObject] = {}
    for loading in objects:
        names = [name for name in loading.map_names() if "." not in name]
        for owner in set(owners.values()):
            loading.reuse_maps(owner, [name for name in names if owners.get(name) is owner])
        loading.load()
        for name in names:
            owners.setdefault(name, loading)
